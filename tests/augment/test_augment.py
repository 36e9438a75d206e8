"""Image operations: their effect on pixels, equal eagerly, under jit and under vmap."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, spec
from cnnjax.augment import erasing, geometry, normalize
from cnnjax.errors import InputError

MEAN, STD = [0.5, 0.25, 0.125], [0.25, 0.5, 0.125]
EIGEN = [[0.25, 0.0625, 0.0], [0.25, 0.0, 0.03125], [0.25, -0.0625, 0.0]]
KEY = jax.random.key(7)

# A call of everything that has arguments to give; a new operation without any is tested by its name alone.
ARGUMENTS = {
    "pad_crop": "pad_crop(2)",
    "cutout": "cutout(3)",
    "shift": "shift(2, -1)",
    "translate": "translate(0.3)",
    "rotate": "rotate(30)",
    "scale": "scale(0.8, 1.3)",
    "shear": "shear(20, 10)",
    "noise": "noise(0.1)",
    "brightness": "brightness(0.4)",
    "contrast": "contrast(0.4)",
    "saturation": "saturation(0.4)",
    "hue": "hue(0.2)",
    "color_jitter": "color_jitter(0.4, 0.4, 0.4, 0.1)",
    "posterize": "posterize(3)",
    "sharpness": "sharpness(2)",
}


def images(count: int = 4, height: int = 8, width: int = 6, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)


def build(calls: str, normalize: str = "none", shape: tuple = (8, 6, 3)) -> Any:
    known = {"mean": MEAN[: shape[2]], "std": STD[: shape[2]], "eigen": EIGEN}
    return augment.build(spec.parse_pipeline(calls), normalize, known, shape)


def bound(name: str) -> Any:
    """The operation as a function (key, image)."""
    call = spec.parse(ARGUMENTS.get(name, name))
    statistics = normalize.statistics({"mean": MEAN, "std": STD, "eigen": EIGEN})
    seen = {"example": jnp.int32(5), "epoch": jnp.int32(1)}
    return lambda key, image: spec.find("operation", call, augment.OPS, key=key, image=image, **seen, **statistics)()


@pytest.mark.parametrize("name", augment.OPS)
def test_eager_jit_and_vmap_agree(name: str) -> None:
    operation = bound(name)
    keys, batch = jax.random.split(KEY, 2), jnp.array(images(2), jnp.float32) / 255
    eager = jnp.stack([operation(key, image) for key, image in zip(keys, batch, strict=True)])
    jitted = jnp.stack([jax.jit(operation)(key, image) for key, image in zip(keys, batch, strict=True)])
    assert (eager.shape, eager.dtype) == (batch.shape, jnp.float32)
    np.testing.assert_allclose(jitted, eager, rtol=0, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(operation))(keys, batch), eager, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, op in augment.OPS.items() if "key" in inspect.signature(op).parameters]
)
def test_randomness_is_the_key_and_each_image_has_its_own(name: str) -> None:
    same = np.repeat(40 + images(1, 24, 30) // 2, 64, axis=0)  # large and pale enough to equalize and to stretch
    run = jax.jit(build(ARGUMENTS.get(name, name), shape=(24, 30, 3)))
    once, other = run(KEY, same), run(jax.random.key(8), same)
    np.testing.assert_array_equal(once, run(KEY, same))
    assert not np.array_equal(once, other)
    assert len(np.unique(once, axis=0)) > 1


def test_two_of_the_same_operation_draw_differently() -> None:
    same = np.repeat(images(1), 64, axis=0)
    mirrored = np.array(jax.jit(build("flip_lr|flip_lr"))(KEY, same) * 255).round() != same
    assert 0 < mirrored.any(axis=(1, 2, 3)).sum() < 64


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (-3, 1), (0, -2), (9, 0)])
def test_shift_moves_down_and_right_and_fills_with_the_mean(rows: int, columns: int) -> None:
    image = images(1)[0] / 255
    out = build(f"shift({rows}, {columns})")(KEY, (image * 255).astype(np.uint8)[None])[0]
    expected = np.broadcast_to(np.array(MEAN), image.shape).copy()
    for y, x in np.ndindex(*image.shape[:2]):
        if 0 <= y + rows < image.shape[0] and 0 <= x + columns < image.shape[1]:
            expected[y + rows, x + columns] = image[y, x]
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_a_statistic_that_is_missing_is_named_and_not_taken_from_the_call() -> None:
    calls, statistics = spec.parse_pipeline("pca_color(0.1)"), {"mean": [0.5] * 3, "std": [0.2] * 3}
    with pytest.raises(InputError, match="'pca_color' needs 'eigen' of the training split, which its statistics lack"):
        augment.build(calls, "none", statistics, (8, 8, 3))


def test_flip_mirrors_half_of_the_images_left_to_right() -> None:
    image = images(1)[0].astype(np.float32)
    out = np.array(jax.vmap(geometry.flip_lr, (0, None))(jax.random.split(KEY, 1000), image))
    kept, mirrored = (out == image).all(axis=(1, 2, 3)), (out == image[:, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 430 < mirrored.sum() < 570  # 4.4 standard deviations
    for probability in (0.0, 1.0):
        always = geometry.flip_lr(KEY, jnp.array(image), probability)
        np.testing.assert_array_equal(always, image[:, ::-1] if probability else image)


def test_pad_crop_takes_every_window_of_the_image_padded_with_the_mean() -> None:
    image, mean = images(1, 5, 6)[0].astype(np.float32), np.array(MEAN, np.float32).reshape(1, 1, 3)
    padded = np.broadcast_to(mean, (13, 14, 3)).copy()
    padded[4:9, 4:10] = image
    windows = {padded[top : top + 5, left : left + 6].tobytes(): (top, left) for top in range(9) for left in range(9)}
    assert len(windows) == 81
    run = jax.jit(jax.vmap(lambda key: geometry.pad_crop(key, jnp.array(image), jnp.array(mean), 4)))
    found = [windows.get(out.tobytes()) for out in np.array(run(jax.random.split(KEY, 2000)))]
    assert set(found) == set(windows.values())


def test_pad_crop_may_reflect() -> None:
    image = images(1, 5, 6)[0].astype(np.float32)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[top : top + 5, left : left + 6].tobytes() for top in range(5) for left in range(5)}
    run = jax.jit(jax.vmap(lambda key: geometry.pad_crop(key, jnp.array(image), jnp.zeros((1, 1, 3)), 2, "reflect")))
    assert {out.tobytes() for out in np.array(run(jax.random.split(KEY, 500)))} == windows


def test_alternating_flips_show_both_sides_in_each_two_epochs() -> None:
    same, examples = np.repeat(images(1), 200, axis=0), jnp.arange(200)
    run = jax.jit(build("flip_alternating"))

    def mirrored(key: jax.Array, epoch: int) -> np.ndarray:
        out = np.array(run(key, same, examples, jnp.full(200, epoch)) * 255).round()
        flipped = (out == same[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (flipped ^ (out == same).all(axis=(1, 2, 3))).all()
        return flipped

    first = mirrored(KEY, 0)
    assert 65 < first.sum() < 135  # about half, five standard deviations
    for epoch in range(1, 4):
        np.testing.assert_array_equal(mirrored(jax.random.key(epoch), epoch), first ^ (epoch % 2 == 1))


@pytest.mark.parametrize("size", [1, 4, 5, 20])
def test_cutout_paints_a_square_around_a_center_anywhere(size: int) -> None:
    image, mean = jnp.full((8, 6, 3), 9.0), jnp.array(MEAN).reshape(1, 1, 3)
    run = jax.jit(jax.vmap(lambda key: erasing.cutout(key, image, mean, size)))
    out = np.array(run(jax.random.split(KEY, 2000)))
    painted = (out != 9).all(axis=3)
    np.testing.assert_array_equal(out, np.where(painted[..., None], np.array(MEAN, np.float32), np.float32(9)))
    squares, counts = np.unique(painted, axis=0, return_counts=True)
    wanted = set()
    for row in range(8):
        for column in range(6):
            square = np.zeros((8, 6), bool)
            top, left = row - size // 2, column - size // 2
            square[max(top, 0) : top + size, max(left, 0) : left + size] = True
            wanted.add(square.tobytes())
    assert {square.tobytes() for square in squares} == wanted
    if len(wanted) == 48:  # each center can be told from the picture: uniform, by a chi-squared test at 1e-6
        assert ((counts - 2000 / 48) ** 2 / (2000 / 48)).sum() < 112


def test_the_fill_is_zero_once_normalized() -> None:
    out = jax.jit(build("pad_crop(4)|cutout(3)", "mean_std"))(KEY, np.full((64, 8, 6, 3), 255, np.uint8))
    white = (1 - np.array(MEAN)) / STD
    filled = np.abs(np.array(out) - white).max(axis=3) > 1e-5
    assert filled.any(axis=(1, 2)).sum() > 60
    np.testing.assert_allclose(out[filled], 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 1, 3), (7, 5, 3)])
@pytest.mark.parametrize("name", augment.OPS)
def test_every_operation_takes_every_shape(name: str, shape: tuple) -> None:
    if name == "pca_color" and shape[2] == 1:
        with pytest.raises(InputError, match=r"pca_color: the images have 1 channel\(s\): expected 3"):
            build(name, "mean_std", shape)
        return
    run = build(ARGUMENTS.get(name, name), "mean_std", shape)
    assert jax.eval_shape(run, KEY, jax.ShapeDtypeStruct((2, *shape), jnp.uint8)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("fliplr", "unknown augmentation 'fliplr'; did you mean 'flip_lr'?"),
        ("pad_crop", "missing a required argument: 'pad'; expected pad_crop(pad: int of 0 to 1,024, fill"),
        ("pad_crop(pads=4)", "has no argument 'pads'; did you mean 'pad'?"),
        ("pad_crop(4, mean=0)", "has no argument 'mean'"),
        ("pad_crop('4')", "pad = '4': expected int"),
        ("flip_lr|pad_crop(1.5)", "pad = 1.5: expected int"),
        ("flip_lr|pad_crop(-1)", "pad = -1: expected int of 0 to 1,024"),
        ("flip_lr(2)", "probability = 2: expected float of 0 to 1"),
        ("flip_ud(-1)", "probability = -1: expected float of 0 to 1"),
        ("translate(1.5)", "fraction = 1.5: expected float of 0 to 1"),
        (
            "rotate((9, 3))",
            "degrees = (9, 3): expected float of 0 to 360 or (float of -360 to",
        ),
        ("rotate(9, interpolation='linear')", "unknown interpolation 'linear'; did you mean 'bilinear'?"),
        ("scale(0, 1)", "low = 0: expected float of more than 0"),
        ("shear(90)", "x = 90: expected float of 0 to 89 or (float of -89 to"),
        ("brightness(-0.1)", "amount = -0.1: expected float of at least 0"),
        ("hue(0.6)", "amount = 0.6: expected float of 0 to 0.5 or (float of -0.5 to 0.5, float of"),
        ("color_jitter(hue=1)", "hue = 1: expected float of 0 to 0.5"),
        ("noise(-1)", "sigma = -1: expected float of at least 0"),
        ("posterize(9)", "bits = 9: expected int of 0 to 8"),
        ("solarize(128)", "threshold = 128: expected float of 0 to 1"),
        ("sharpness(-1)", "factor = -1: expected float of at least 0"),
        ("random_erasing(mode='pixels')", "unknown random_erasing: mode 'pixels'; did you mean 'pixel'?"),
        (
            "random_erasing(area=(0.5, 2.0))",
            "area = (0.5, 2.0): expected (float of more than 0 and at most 1, float of",
        ),
        ("rand_augment(2, 31)", "rand_augment: magnitude = 31: expected 0 to 30, as bins = 31"),
        ("rand_augment(-1)", "num_ops = -1: expected int of 0 to 100"),
        ("trivial_augment(1)", "bins = 1: expected int of 2 to 1,000"),
        ("auto_augment('cifar')", "unknown auto_augment: policy 'cifar'; did you mean 'cifar10'?"),
        ("augmix(11)", "severity = 11: expected int of 1 to 10"),
        ("augmix(alpha=0.0)", "alpha = 0.0: expected float of more than 0"),
        ("mixup(0.2)", "'mixup' mixes the images of a training batch: use it in config.augment"),
        ("cutout(0)", "size = 0: expected int of 1 to 65,535"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(calls: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        build(calls)
