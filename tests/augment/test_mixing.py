"""Mixing of batches: pixels and targets, position in a pipeline, independence of the number of devices."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, spec
from cnnjax.augment import mixing
from cnnjax.data.operations import parse_operations
from cnnjax.distributed import sharding
from cnnjax.errors import InputError

KEY = jax.random.key(7, impl="rbg")
KEYS = jax.random.split(KEY, 64)
CALLS = {"mixup": "mixup(0.4)", "cutmix": "cutmix(1.0)"}
LABEL = jnp.array([3, 0, 2, 2, 1, 0])
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 10, 3)), jnp.float32)


@functools.cache
def mixed(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each of `KEYS`, the images [64, 6, 8, 10, 3] and targets [64, 6, 4]."""
    mix = augment.build_mixing(spec.parse_pipeline(text), 4)
    images, target = jax.jit(jax.vmap(mix, (0, None, None)))(KEYS, IMAGES, LABEL)
    return np.asarray(images), np.asarray(target)


def shares(target: np.ndarray) -> np.ndarray:
    """The weight of its own label in the first image's target, whose partner's label is another."""
    return target[:, 0, 3]


@pytest.mark.parametrize("name", augment.MIXING)
def test_the_mass_of_targets_is_conserved(name: str) -> None:
    images, target = mixed(CALLS[name])
    np.testing.assert_allclose(target.sum(axis=2), 1, atol=1e-6)
    assert target.min() >= 0
    totals = np.broadcast_to(np.array(jax.nn.one_hot(LABEL, 4)).sum(axis=0), (64, 4))
    np.testing.assert_allclose(target.sum(axis=1), totals, atol=1e-5)  # of each class, over the batch
    np.testing.assert_allclose(images.sum(axis=1), np.broadcast_to(IMAGES.sum(axis=0), (64, 8, 10, 3)), atol=1e-4)
    assert len(np.unique(shares(target))) > 20


@pytest.mark.parametrize("name", augment.MIXING)
def test_the_target_of_each_image_says_what_is_in_it(name: str) -> None:
    """Of images whose pixels are their label, one-hot."""
    one_hot = jax.nn.one_hot(LABEL, 4)
    images = jnp.broadcast_to(one_hot[:, None, None], (6, 8, 10, 4))
    op = functools.partial(spec.find, "operation", spec.parse(CALLS[name]), augment.MIXING)
    mixed, target = jax.jit(jax.vmap(lambda key: op(key=key, images=images, target=one_hot)()))(KEYS)
    np.testing.assert_allclose(mixed.mean(axis=(2, 3)), target, atol=1e-6)


def test_mixup_is_the_mean_of_an_image_and_its_partner() -> None:
    images, target = mixed("mixup(0.4)")
    s = shares(target)
    expected = s[:, None, None, None] * np.array(IMAGES[0]) + (1 - s)[:, None, None, None] * np.array(IMAGES[5])
    np.testing.assert_allclose(images[:, 0], expected, atol=1e-5)
    assert 0.2 < s.mean() < 0.8
    assert ((s < 0.05) | (s > 0.95)).mean() > 0.2  # a small alpha leaves most images nearly alone


def test_cutmix_gives_a_rectangle_of_the_partner_and_its_share() -> None:
    images, target = mixed("cutmix(1.0)")
    for out, share in zip(images, shares(target), strict=True):
        own, other = (out[0] == np.array(IMAGES[0])).all(axis=2), (out[0] == np.array(IMAGES[5])).all(axis=2)
        assert (own ^ other).all()
        assert other.mean() == pytest.approx(1 - share, abs=1e-6)
        if other.any():
            rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
            assert np.ptp(rows) + 1 == len(rows)
            assert len(rows) * len(columns) == other.sum()


def test_of_two_each_batch_gets_one_with_the_same_chance() -> None:
    images, target = mixed("mixup(0.4)|cutmix(1.0)")
    np.testing.assert_allclose(target.sum(axis=2), 1, atol=1e-6)
    own, other = (images[:, 0] == np.array(IMAGES[0])), (images[:, 0] == np.array(IMAGES[5]))
    cut = (own | other).all(axis=(1, 2, 3))
    assert 14 <= cut.sum() <= 50  # of 64, 4.5 standard deviations


@pytest.mark.parametrize("text", ["mixup(0.4, probability=0.0)", "cutmix(probability=0.0)", ""])
def test_what_is_not_mixed_is_as_it_was(text: str) -> None:
    images, target = mixed(text)
    np.testing.assert_array_equal(images, np.broadcast_to(IMAGES, images.shape))
    np.testing.assert_array_equal(target, np.broadcast_to(jax.nn.one_hot(LABEL, 4), target.shape))


def test_a_probability_is_of_the_batch() -> None:
    changed = shares(mixed("cutmix(1.0, probability=0.5)")[1]) < 1
    assert 12 <= changed.sum() <= 48


@pytest.mark.parametrize("text", ["pad_crop(2)|mixup(0.4)|cutmix(1.0)", "rand_augment(1, 9)|cutmix(1.0)"])
def test_any_number_of_devices_makes_the_same_batch(text: str) -> None:
    operations = parse_operations(text)
    prepare = augment.build(operations.step, "none", {"mean": [0.5] * 3, "std": [0.2] * 3}, (8, 10, 3))
    mix = augment.build_mixing(operations.mixing, 4)
    raw = np.random.default_rng(0).integers(0, 256, (8, 8, 10, 3), np.uint8)
    label = np.arange(8, dtype=np.int32) % 4
    found: list[Any] = []
    for devices in (1, 8):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        step = jax.jit(lambda key, x, y: mix(key, prepare(key, x), y), in_shardings=(whole, rows, rows))
        key = jax.random.key(1)  # whose draws are the same however they are divided
        found.append(jax.device_get(step(key, sharding.put_batch(mesh, raw), sharding.put_batch(mesh, label))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixup(0.2)|flip_lr", "'mixup' mixes whole batches, so it must come after 'flip_lr'"),
        ("flip_lr|cutmix|resize(9)", "'resize' runs on the host, so it must come before 'flip_lr'"),
        ("mixupp(0.2)", "unknown operation 'mixupp'; did you mean 'mixup'?"),
    ],
)
def test_mixing_comes_last(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_operations(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mixup",
            "missing a required argument: 'alpha'; expected mixup(alpha: float of more than 0, probability",
        ),
        ("mixup(0.0)", "alpha = 0.0: expected float of more than 0"),
        ("cutmix(1.0, 2.0)", "probability = 2.0: expected float of 0 to 1"),
        ("cutmix(target=1)", "has no argument 'target'"),
    ],
)
def test_a_mixing_that_does_not_fit_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        augment.build_mixing(spec.parse_pipeline(text), 10)


def test_every_mixing_operation_is_tested_with_its_arguments() -> None:
    assert CALLS.keys() == augment.MIXING.keys() == mixing.MIXING.keys()
