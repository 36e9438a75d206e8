"""Augmentations against torchvision: the same operations on the same levels, and the same tables of policies."""

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, spec
from cnnjax.augment import auto_augment, policies
from tests.parity import harness

pytestmark = pytest.mark.slow
MEAN = [128 / 255, 64 / 255, 32 / 255]
OURS: dict[str, str] = {"AutoContrast": "autocontrast", "Color": "color", "ShearX": "shear_x", "ShearY": "shear_y",
        "TranslateX": "translate_x", "TranslateY": "translate_y"}  # fmt: skip


@pytest.fixture(autouse=True)
def _torchvision() -> None:
    """Skips without it, and makes it ready where its operators are for another build of torch."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed: see .ci/references.txt")
    harness.torch_models("torchvision")


def levels() -> np.ndarray:
    rng, rows, columns = np.random.default_rng(1), np.arange(40)[:, None, None], np.arange(52)[None, :, None]
    smooth = 125 + 60 * np.sin(rows / 5 + np.arange(3)) + 35 * np.cos(columns / 4 - np.arange(3))
    return (smooth + rng.integers(-9, 10, (40, 52, 3))).clip(0, 255).astype(np.uint8)


def affine(f: Any, **changes: Any) -> Callable:
    given = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **changes}
    return lambda x: f.affine(x, fill=[255 * m for m in MEAN], **given)


# What torchvision's function makes of the uint8 image, and by how many levels a value may differ.
ROWS: dict[str, tuple[Callable[[Any, Any], Callable], int]] = {
    "flip_lr(1.0)": (lambda f, mode: f.hflip, 0),
    "flip_ud(1.0)": (lambda f, mode: f.vflip, 0),
    "shift(3, -4)": (lambda f, mode: affine(f, translate=[-4, 3]), 0),
    "rotate((17, 17))": (lambda f, m: lambda x: f.rotate(x, 17.0, m.BILINEAR, fill=[255 * c for c in MEAN]), 1),
    "rotate((-40, -40), 'nearest')": (lambda f, m: lambda x: f.rotate(x, -40.0, fill=[255 * c for c in MEAN]), 0),
    "scale(1.3, 1.3)": (lambda f, mode: affine(f, scale=1.3, interpolation=mode.BILINEAR), 1),
    "scale(0.71, 0.71, 'nearest')": (lambda f, mode: affine(f, scale=0.71), 0),
    "shear((20, 20), (-10, -10))": (lambda f, m: affine(f, shear=[20.0, -10.0], interpolation=m.BILINEAR), 1),
    "brightness((1.4, 1.4))": (lambda f, mode: lambda x: f.adjust_brightness(x, 1.4), 1),
    "contrast((1.7, 1.7))": (lambda f, mode: lambda x: f.adjust_contrast(x, 1.7), 2),
    "saturation((0.3, 0.3))": (lambda f, mode: lambda x: f.adjust_saturation(x, 0.3), 2),
    "hue((0.2, 0.2))": (lambda f, mode: lambda x: f.adjust_hue(x, 0.2), 1),
    "grayscale(1.0)": (lambda f, mode: lambda x: f.rgb_to_grayscale(x, 3), 1),
    "sharpness(1.9, 1.0)": (lambda f, mode: lambda x: f.adjust_sharpness(x, 1.9), 2),
    "autocontrast(1.0)": (lambda f, mode: f.autocontrast, 1),
    "posterize(3, 1.0)": (lambda f, mode: lambda x: f.posterize(x, 3), 0),
    "solarize(0.5, 1.0)": (lambda f, mode: lambda x: f.solarize(x, 127.5), 0),
    "equalize(1.0)": (lambda f, mode: f.equalize, 0),
    "invert(1.0)": (lambda f, mode: f.invert, 0),
}


def differing(run: Callable, expected: Any, off: int) -> float:
    """The share of values that are off by more; where the nearest of two pixels is a toss-up, some are.

    `run` takes an image and the mean. Of pixels that lie half inside of the image torchvision weighs the image twice.
    """
    got = 255 * np.asarray(run(jnp.asarray(levels() / 255, jnp.float32), jnp.array(MEAN).reshape(1, 1, 3)))
    part = np.asarray(run(jnp.ones(got.shape), jnp.zeros((1, 1, 3))))
    whole = np.broadcast_to(True, part.shape) if np.ptp(part) == 0 else (part < 1e-4) | (part > 1 - 1e-4)
    assert whole.mean() > 0.9
    return float((np.abs(got - expected.numpy().transpose(1, 2, 0)) > off + 1e-2)[whole].mean())


@pytest.mark.parametrize("text", ROWS)
def test_an_operation_is_torchvisions(text: str) -> None:
    torch, transforms = pytest.importorskip("torch"), pytest.importorskip("torchvision.transforms")
    build, off = ROWS[text]
    peer = build(transforms.functional, transforms.InterpolationMode)
    call = spec.parse(text)

    def run(image: Any, mean: Any) -> Any:
        return spec.find("", call, augment.OPS, key=jax.random.key(0), image=image, mean=mean)()

    assert differing(run, peer(torch.from_numpy(levels().transpose(2, 0, 1).copy())), off) < 2e-3


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_an_operation_of_a_policy_is_torchvisions(interpolation: str) -> None:
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("torchvision.transforms.autoaugment")
    image = levels()
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    space = peer.AutoAugment()._augmentation_space(10, image.shape[:2]) | {"Identity": (torch.tensor(0.0), False)}
    apply = jax.jit(policies.apply, static_argnums=4)
    wrong = {}
    for name, (strengths, signed) in space.items():
        for sign in (1, -1) if signed else (1,):
            strength = sign * float(strengths[4] if strengths.ndim else 0.0)
            fill, mode = [255 * m for m in MEAN], peer.InterpolationMode(interpolation)
            expected = peer._apply_op(pixels, name, strength, mode, fill)
            one = jnp.array([policies.OP_INDEX[OURS.get(name, str(name).lower())]]), jnp.array([strength])
            share = differing(lambda image, mean, one=one: apply(image, *one, mean, interpolation), expected, 2)
            if share > 2e-3:
                wrong[name, sign] = share
    assert not wrong


def test_strengths_are_torchvisions() -> None:
    peer = pytest.importorskip("torchvision.transforms.autoaugment")
    shape = (40, 52, 3)
    for space, bins, theirs in (
        (policies.STANDARD_SPACE, 31, peer.RandAugment()._augmentation_space(31, shape[:2])),
        (policies.STANDARD_SPACE, 10, peer.AutoAugment()._augmentation_space(10, shape[:2])),
        (policies.WIDE_SPACE, 31, peer.TrivialAugmentWide()._augmentation_space(31)),
        (policies.AUGMIX_SPACE, 10, peer.AugMix()._augmentation_space(10, shape[:2])),
    ):
        table = np.asarray(space.table(shape, bins))
        for name, (strengths, signed) in theirs.items():
            ours: str = OURS.get(name, str(name).lower())
            assert signed == (ours in (*policies.AFFINE_OPS, *policies.BLEND_OPS)), name
            if strengths.ndim:
                np.testing.assert_allclose(table[policies.OP_INDEX[ours]], strengths.numpy(), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("policy", auto_augment.POLICIES)
def test_the_policies_of_autoaugment_are_torchvisions(policy: str) -> None:
    peer = pytest.importorskip("torchvision.transforms.autoaugment")
    numbers, probabilities, bins = auto_augment.POLICIES[policy]
    theirs = peer.AutoAugment(peer.AutoAugmentPolicy(policy)).policies
    ours = [
        [(policies.OP_NAMES[n], round(float(p), 3), int(b)) for n, p, b in zip(*pair, strict=True)]
        for pair in zip(numbers, probabilities, bins, strict=True)
    ]
    expected = [[(OURS.get(name, name.lower()), p, b or 0) for name, p, b in pair] for pair in theirs]
    assert json.dumps(ours) == json.dumps(expected)
