"""Affine maps, colors, erasing and policies, against definitions by loops and against Pillow."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cnnjax import augment, spec
from cnnjax.augment import auto_augment, color, erasing, geometry, policies, random

KEY = jax.random.key(7, impl="rbg")
MEAN = jnp.array([0.5, 0.25, 0.125]).reshape(1, 1, 3)
KEYS = jax.random.split(KEY, 300)


def picture(height: int = 24, width: int = 30, channels: int = 3) -> np.ndarray:
    """Returns a smooth uint8 image with noise, most of its levels between 30 and 220."""
    rng, rows, columns = np.random.default_rng(1), np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    smooth = 125 + 60 * np.sin(rows / 5 + np.arange(channels)) + 35 * np.cos(columns / 4 - np.arange(channels))
    return (smooth + rng.integers(-9, 10, (height, width, channels))).clip(0, 255).astype(np.uint8)


def pinned(text: str, image: Any, **given: Any) -> np.ndarray:
    """Returns the result of a call string on an image, float32 in [0, 1]."""
    given = {"key": KEY, "image": jnp.asarray(image, jnp.float32), "mean": MEAN, **given}
    return np.asarray(spec.find("augmentation", spec.parse(text), augment.OPS, **given)())


# ---------------------------------------------------------------------------------------------------------- geometry


def slow_warp(image: np.ndarray, matrix: np.ndarray, interpolation: str) -> np.ndarray:
    height, width, channels = image.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    out = np.zeros((height, width, channels))

    def at(row: int, column: int) -> np.ndarray:
        inside = 0 <= row < height and 0 <= column < width
        return image[row, column] if inside else np.asarray(MEAN)[0, 0, :channels]

    for y, x in itertools.product(range(height), range(width)):
        column, row = matrix[:, :2] @ (np.array([x, y]) - middle) + matrix[:, 2] + middle
        if interpolation == "nearest":
            out[y, x] = at(round(row), round(column))
            continue
        top, left = int(np.floor(row)), int(np.floor(column))
        for i, j in itertools.product((0, 1), (0, 1)):
            weight = abs(1 - i - (row - top)) * abs(1 - j - (column - left))
            out[y, x] += weight * at(top + i, left + j)
    return out


@pytest.mark.parametrize("interpolation", geometry.INTERPOLATIONS)
@pytest.mark.parametrize(
    "matrix", [[[1, 0, 0], [0, 1, 0]], [[0.9, -0.3, 1.7], [0.2, 1.1, -2.2]], [[0.1, 0.4, 9], [-0.6, 0.2, 0]]]
)
def test_a_warp_is_its_definition(matrix: list, interpolation: str) -> None:
    image = picture(7, 9) / 255
    got = geometry.warp(jnp.asarray(image, jnp.float32), MEAN, jnp.array(matrix, jnp.float32), interpolation)
    np.testing.assert_allclose(got, slow_warp(image, np.array(matrix), interpolation), atol=1e-5)


@pytest.mark.parametrize("interpolation", geometry.INTERPOLATIONS)
@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("rotate((90, 90))", lambda x: np.rot90(x)),  # counter-clockwise
        ("rotate((-180, -180))", lambda x: x[::-1, ::-1]),
        ("rotate(0)", lambda x: x),
        ("scale(3, 3)", lambda x: np.repeat(np.repeat(x[2:4, 2:4], 3, 0), 3, 1)),
        ("scale(1, 1)", lambda x: x),
        ("shear(0)", lambda x: x),
    ],
)
def test_turns_and_zooms_of_whole_pixels(text: str, reference: Callable, interpolation: str) -> None:
    image = picture(6, 6) / 255
    if text.startswith("scale(3") and interpolation == "bilinear":
        pytest.skip("pixels lie between those of the image")
    got = pinned(f"{text[:-1]}, interpolation={interpolation!r})", image)
    np.testing.assert_allclose(got, reference(image), atol=1e-4)


def test_a_shear_moves_rows_by_their_distance_from_the_middle() -> None:
    image = picture(5, 9) / 255
    out = pinned("shear((45, 45))", image)
    for row, by in enumerate((-2, -1, 0, 1, 2)):
        came_in = np.broadcast_to(MEAN[0], (abs(by), 3))
        expected = [*image[row, by:], *came_in] if by >= 0 else [*came_in, *image[row, :by]]
        np.testing.assert_allclose(out[row], expected, atol=1e-5)


def test_translations_reach_the_fraction_of_each_side_and_no_further() -> None:
    spot = jnp.zeros((11, 21, 1)).at[5, 10].set(1.0)
    run = jax.jit(jax.vmap(lambda key: geometry.translate(key, spot, MEAN[:, :, :1] * 0, (0.1, 0.3))))
    found = {tuple(place - [5, 10]) for place in np.argwhere(np.array(run(KEYS)))[:, 1:3]}
    assert found == set(itertools.product(range(-3, 4), range(-2, 3)))


def test_flip_ud_mirrors_half_of_the_images_top_to_bottom() -> None:
    image = jnp.asarray(picture(), jnp.float32)
    out = np.array(jax.vmap(geometry.flip_ud, (0, None))(KEYS, image))
    mirrored = (out == np.array(image)[::-1]).all(axis=(1, 2, 3))
    assert (mirrored ^ (out == np.array(image)).all(axis=(1, 2, 3))).all()
    assert 110 < mirrored.sum() < 190


# ------------------------------------------------------------------------------------------------------------ colors

# Against Pillow, and by how many of 256 levels a value may differ: Pillow rounds what it blends with
# to whole ones, and cuts off the result.
PILLOW: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "brightness((1.4, 1.4))": (lambda x: ImageEnhance.Brightness(x).enhance(1.4), 1),
    "brightness((0.3, 0.3))": (lambda x: ImageEnhance.Brightness(x).enhance(0.3), 1),
    "contrast((1.7, 1.7))": (lambda x: ImageEnhance.Contrast(x).enhance(1.7), 2),
    "contrast((0.2, 0.2))": (lambda x: ImageEnhance.Contrast(x).enhance(0.2), 2),
    "saturation((1.8, 1.8))": (lambda x: ImageEnhance.Color(x).enhance(1.8), 2),
    "saturation((0, 0))": (lambda x: ImageEnhance.Color(x).enhance(0.0), 2),
    "sharpness(1.9, 1.0)": (lambda x: ImageEnhance.Sharpness(x).enhance(1.9), 2),
    "sharpness(0, 1.0)": (lambda x: ImageEnhance.Sharpness(x).enhance(0.0), 2),
    "grayscale(1.0)": (lambda x: ImageOps.grayscale(x).convert(x.mode), 1),
    "autocontrast(1.0)": (ImageOps.autocontrast, 1),
    "posterize(3, 1.0)": (lambda x: ImageOps.posterize(x, 3), 0),
    "posterize(8, 1.0)": (lambda x: x, 0),
    "solarize(0.5, 1.0)": (lambda x: ImageOps.solarize(x, 128), 0),
    "equalize(1.0)": (ImageOps.equalize, 0),
    "invert(1.0)": (ImageOps.invert, 0),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", PILLOW)
def test_a_color_operation_is_pillows(text: str, channels: int) -> None:
    levels, (peer, off) = picture(40, 50, channels), PILLOW[text]
    expected = np.asarray(peer(Image.fromarray(levels.squeeze()))).reshape(levels.shape)
    got = 255 * pinned(text, levels / 255)
    np.testing.assert_allclose(got, expected, atol=off + 1e-3)


def test_one_level_and_few_pixels_stay_as_they_are() -> None:
    for image in (np.full((40, 50, 3), 0.5), picture(2, 2) / 255):
        for text in ("equalize(1.0)", "sharpness(2, 1.0)"):
            np.testing.assert_allclose(pinned(text, image), image, atol=0.5 / 255 if text[0] == "e" else 1e-6)
    np.testing.assert_array_equal(pinned("autocontrast(1.0)", np.full((4, 4, 3), 0.5)), 0.5)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_is_turned_in_hsv(turn: float) -> None:
    import colorsys

    image = np.random.default_rng(3).random((6, 8, 3))
    image[0, 0], image[0, 1], image[0, 2] = 0, 1, 0.5
    image[1, :6] = list(itertools.permutations((0.2, 0.2, 0.8)))
    got = pinned(f"hue(({turn}, {turn}))", image)
    for place in np.ndindex(6, 8):
        h, s, v = colorsys.rgb_to_hsv(*image[place])
        np.testing.assert_allclose(got[place], colorsys.hsv_to_rgb((h + turn) % 1, s, v), atol=1e-5)


def test_an_amount_is_a_range_of_factors() -> None:
    image = jnp.full((1, 1, 3), 0.4)
    for amount, low, high in ((0.4, 0.6, 1.4), (2.0, 0.0, 3.0), ((0.5, 0.9), 0.5, 0.9)):
        factors = np.array(jax.vmap(lambda key, a=amount: color.brightness(key, image / 4, a))(KEYS))[:, 0, 0, 0] / 0.1
        assert low <= factors.min() < low + 0.05 * (high - low)
        assert high >= factors.max() > high - 0.05 * (high - low)


def test_color_jitter_takes_the_four_in_every_order() -> None:
    image = jnp.asarray(picture(6, 6) / 255, jnp.float32)
    run = jax.jit(jax.vmap(lambda key: color.color_jitter(key, image, (2, 2), (0.5, 0.5), (1.5, 1.5), (0.2, 0.2))))
    steps = [("brightness", 2), ("contrast", 0.5), ("saturation", 1.5), ("hue", 0.2)]
    expected = []
    for order in itertools.permutations(steps):
        one = image
        for name, amount in order:
            one = pinned(f"{name}(({amount}, {amount}))", one)
        expected.append(one)
    distance = np.abs(np.array(run(KEYS))[:, None] - np.stack(expected)[None]).max(axis=(2, 3, 4))
    assert distance.min(axis=1).max() < 1e-5
    assert len({tuple(row < 1e-5) for row in distance}) == len({one.tobytes() for one in np.round(expected, 4)})


def test_pca_color_is_one_color_along_the_components() -> None:
    eigen = jnp.array([[0.2, 0.0, 0.03], [0.2, 0.05, 0.0], [0.2, -0.05, -0.03]])
    image = jnp.asarray(picture() / 255, jnp.float32)
    added = np.array(jax.vmap(lambda key: color.pca_color(key, image, eigen, sigma=0.5) - image)(KEYS))
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-6)
    shares = np.linalg.solve(np.array(eigen), added[:, 0, 0].T)
    np.testing.assert_allclose(shares.mean(axis=1), 0, atol=0.1)
    np.testing.assert_allclose(shares.std(axis=1), 0.5, atol=0.08)
    assert np.abs(np.corrcoef(shares) - np.eye(3)).max() < 0.2


# ----------------------------------------------------------------------------------------------------------- painting


def test_noise_has_its_deviation_and_stays_in_range() -> None:
    out = np.array(erasing.noise(KEY, jnp.full((100, 100, 3), 0.5), 0.1))
    assert (abs(out.mean() - 0.5) < 2e-3, abs(out.std() - 0.1) < 2e-3) == (True, True)
    out = np.array(erasing.noise(KEY, jnp.ones((50, 50, 3)), 0.5))
    assert (out.max(), out.min() >= 0) == (1, True)


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_random_erasing_paints_a_rectangle_of_its_area_and_aspect(mode: str) -> None:
    image, std = jnp.full((40, 50, 3), 9.0), jnp.array([0.1, 0.2, 0.3]).reshape(1, 1, 3)
    run = jax.vmap(lambda key: erasing.random_erasing(key, image, MEAN, std, 0.7, (0.1, 0.3), (0.5, 2.0), mode))
    out, colors = np.array(jax.jit(run)(KEYS)), []
    for one in out:
        painted = (one != 9).all(axis=2)
        if not painted.any():
            continue
        rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert painted.sum() == height * width
        assert 0.09 < height * width / 2000 < 0.32
        assert 0.45 < height / width < 2.2
        colors.append(one[painted])
        spread = np.ptp(one[painted], axis=0).max()
        assert spread > 0.1 if mode == "pixel" else spread == 0
    assert 0.6 < len(colors) / len(out) < 0.8
    values = np.concatenate(colors)
    np.testing.assert_allclose(values.mean(axis=0), np.array(MEAN)[0, 0], atol=0.05)
    np.testing.assert_allclose(values.std(axis=0), 0 if mode == "const" else [0.1, 0.2, 0.3], atol=0.03)


# ----------------------------------------------------------------------------------------------------------- policies


def test_an_operation_of_a_policy_is_the_operation_by_itself() -> None:
    image = jnp.asarray(picture() / 255, jnp.float32)
    alone = {
        "identity": ("shift", 0.0),
        "translate_x": ("shift(0, 3)", 3.7),
        "translate_y": ("shift(-2, 0)", -2.9),
        "rotate": ("rotate((20, 20), 'nearest')", 20.0),
        "brightness": ("brightness((1.5, 1.5))", 0.5),
        "color": ("saturation((0.4, 0.4))", -0.6),
        "contrast": ("contrast((1.9, 1.9))", 0.9),
        "sharpness": ("sharpness(0.2, 1.0)", -0.8),
        "posterize": ("posterize(2, 1.0)", 2.0),
        "solarize": ("solarize(0.4, 1.0)", 102.0),
        "autocontrast": ("autocontrast(1.0)", 0.0),
        "equalize": ("equalize(1.0)", 0.0),
        "invert": ("invert(1.0)", 0.0),
    }
    assert alone.keys() == set(policies.OP_NAMES) - {"shear_x", "shear_y"}
    run = jax.jit(lambda number, strength: policies.apply(image, number, strength, MEAN, "nearest"))
    for name, (text, strength) in alone.items():
        got = run(jnp.array([policies.OP_INDEX[name]]), jnp.array([strength]))
        np.testing.assert_allclose(got, pinned(text, image), atol=1e-6, err_msg=name)


def test_shears_of_a_policy_hold_the_upper_left_corner() -> None:
    image = jnp.asarray(picture(6, 8) / 255, jnp.float32)
    for name, axis in (("shear_x", 0), ("shear_y", 1)):
        number = jnp.array([policies.OP_INDEX[name]])
        out = np.array(policies.apply(image, number, jnp.array([0.3]), MEAN, "nearest"))
        for i in range(image.shape[axis]):
            by = round(0.3 * (i + 0.5))
            moved = pinned(f"shift({0 if axis == 0 else -by}, {-by if axis == 0 else 0})", image)
            np.testing.assert_allclose(out.take(i, axis), moved.take(i, axis), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "absent"),  # operations that it has not
    [
        ("rand_augment(2, 5)", {"invert"}),
        ("trivial_augment", {"invert"}),
        ("auto_augment('svhn')", {"brightness", "color", "sharpness", "posterize"}),
    ],
)
def test_a_policy_draws_all_of_its_operations_and_both_signs(
    text: str, absent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(image: Any, numbers: Any, strengths: Any, *_: Any) -> Any:
        both = jnp.stack([numbers.astype(jnp.float32), jnp.sign(strengths)], axis=1)
        return jnp.full((1, 2, 2), -1.0).at[0, : len(both)].set(both)

    for module in (policies, auto_augment):
        monkeypatch.setattr(module, "apply", noted)
    call, image = spec.parse(text), jnp.zeros((6, 6, 3))
    drawn = jax.jit(jax.vmap(lambda key: spec.find("", call, augment.OPS, key=key, image=image, mean=MEAN)()))
    pairs = np.array(drawn(jax.random.split(KEY, 2000))).reshape(-1, 2)
    seen = {(policies.OP_NAMES[int(number)], sign < 0) for number, sign in pairs if number >= 0}
    names = set(policies.OP_NAMES) - absent
    mirrored = names & {*policies.AFFINE_OPS, *policies.BLEND_OPS}
    assert seen == {(name, False) for name in names} | {(name, True) for name in mirrored}


def test_the_first_bin_changes_nothing_where_strengths_begin_at_none() -> None:
    image = jnp.asarray(picture(9, 8) / 255, jnp.float32)
    for space in (policies.STANDARD_SPACE, policies.WIDE_SPACE, policies.AUGMIX_SPACE):
        table = space.table(image.shape, 10)
        assert not table[
            np.array([policies.OP_INDEX[name] for name in (*policies.AFFINE_OPS, *policies.BLEND_OPS)]), 0
        ].any()
        assert (table[policies.OP_INDEX["posterize"], 0], table[policies.OP_INDEX["solarize"], 0]) == (space.bits, 255)
    np.testing.assert_array_equal(pinned("rand_augment(0)", image), image)


def test_augmix_is_a_mean_of_the_image_and_of_chains() -> None:
    image = jnp.full((12, 12, 3), 0.25).at[:6].set(0.75)
    out = np.array(jax.jit(jax.vmap(lambda key: policies.augmix(key, image, MEAN, severity=1)))(KEYS[:40]))
    assert ((out >= -1e-6) & (out <= 1 + 1e-6)).all()
    assert len(np.unique(out.round(4), axis=0)) > 20


def test_on_a_cpu_images_go_in_turn_and_elsewhere_together() -> None:
    """The same numbers either way: a choice of branches under vmap is a selection."""
    image = jnp.stack([jnp.asarray(picture(6, 6) / 255, jnp.float32)] * 5)

    def changed(image: Any, which: Any) -> Any:
        return jax.lax.switch(which, [lambda x: x, color.equalize_histogram, color.blur], image)

    which = jnp.array([0, 1, 2, 1, 0])
    together = jax.vmap(changed)(image, which)
    np.testing.assert_allclose(jax.vmap(random.sequential_on_cpu(changed))(image, which), together, atol=1e-6)
    assert "scan" in str(jax.make_jaxpr(jax.vmap(random.sequential_on_cpu(changed)))(image, which))
    np.testing.assert_allclose(  # an argument that all share
        jax.vmap(random.sequential_on_cpu(changed), (None, 0))(image[0], which), together, atol=1e-6
    )
