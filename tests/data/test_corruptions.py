"""Corruptions: the published formulas, written out a second time; their statistics, strengths and names."""

import colorsys
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cnnjax.data import corruption_effects as effects
from cnnjax.data import corruptions
from cnnjax.data.corruptions import CORRUPTIONS, corrupt
from cnnjax.data.operations import parse_operations
from cnnjax.errors import InputError


def photo(height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth shapes and some noise, as a photograph has."""
    rng = np.random.default_rng(0)
    coarse = np.asarray(ndimage.zoom(rng.random((4, 4, channels)), (height / 4, width / 4, 1), order=1))
    return np.clip(255 * coarse + 6 * rng.standard_normal((height, width, channels)), 0, 255).astype(np.uint8)


def at(name: str, severity: int, image: np.ndarray, seed: int = 0) -> np.ndarray:
    return corrupt(image, np.random.default_rng(seed), name, severity)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_takes_every_image_and_is_a_function_of_the_seed(name: str) -> None:
    for shape in ((32, 32, 3), (33, 20, 1), (64, 70, 3), (8, 8, 1)):
        image = photo(*shape)
        before = image.copy()
        for severity in corruptions.SEVERITIES:
            result = at(name, severity, image)
            assert (result.dtype, result.shape) == (np.uint8, shape)
            np.testing.assert_array_equal(result, at(name, severity, image))
            np.testing.assert_array_equal(image, before)
    assert not np.array_equal(at(name, 5, photo()), photo())
    for constant in (0, 255):  # no division by 0
        at(name, 3, np.full((32, 32, 3), constant, np.uint8))


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_brightness_and_saturation_change_value_and_saturation_in_hsv(severity: int) -> None:
    image = photo(6, 7)
    image[0, :3] = [[0, 0, 0], [90, 90, 90], [255, 255, 255]]
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    factor, offset = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    for name, change in {
        "brightness": lambda h, s, v: (h, s, min(v + more, 1)),
        "saturate": lambda h, s, v: (h, min(s * factor + offset, 1), v),
    }.items():
        wanted = [
            [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(pixel / 255)))) for pixel in row] for row in image
        ]
        assert np.abs(at(name, severity, image) - 255 * np.array(wanted) + 0.5).max() < 0.51  # rounded down


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_contrast_jpeg_and_pixelate_are_as_published(severity: int) -> None:
    image = photo()
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    wanted = np.empty(image.shape)
    for channel in range(3):
        mean = sum(map(int, image[:, :, channel].ravel())) / 1024
        wanted[:, :, channel] = np.clip((image[:, :, channel] - mean) * factor + mean, 0, 255)
    assert np.abs(at("contrast", severity, image) - wanted + 0.5).max() < 0.51
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
    np.testing.assert_array_equal(at("jpeg_compression", severity, image), np.asarray(Image.open(buffer)))
    small = (30, 28, 27, 24, 20)[severity - 1]  # of 32 * 0.95, 0.9, ..., rounded down
    down, up = box_filter(32, small), box_filter(small, 32)
    wanted = np.stack([up @ np.round(down @ image[:, :, c] @ down.T) @ up.T for c in range(3)], axis=2)
    assert np.abs(at("pixelate", severity, image) - wanted).max() <= 1.6  # Pillow rounds after each side


def box_filter(size: int, to: int) -> np.ndarray:
    """Pillow's box filter: a new pixel is the mean of those whose centers it covers, or the nearest."""
    matrix = np.zeros((to, size))
    for i in range(to):
        center, reach = (i + 0.5) * size / to, max(size / to, 1) / 2
        covered = [j for j in range(size) if -reach < j + 0.5 - center <= reach]
        matrix[i, covered] = 1 / len(covered)
    return matrix


def test_defocus_is_the_mean_over_a_disk() -> None:
    image = photo()
    padded = np.pad(image.astype(float), [(1, 1), (1, 1), (0, 0)], mode="reflect")
    neighbors = {(y, x): padded[1 + y : 33 + y, 1 + x : 33 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)}
    cross = sum(neighbors[place] for place in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))) / 5
    for severity, wanted in {4: cross, 5: sum(neighbors.values()) / 9}.items():
        assert np.abs(at("defocus_blur", severity, image) - wanted + 0.5).max() < 0.52
    wide = effects._disk(10, 0.5)  # ImageNet's severity 5
    assert wide.shape == (21, 21)
    assert wide.sum() == pytest.approx(1, abs=0.02)  # at the border the blur mirrors, as published
    assert wide[10, 10] == pytest.approx(1 / 317, rel=1e-6)  # 317 pixels lie in a circle of radius 10


@pytest.mark.parametrize("side", [32, 50])
def test_zoom_blur_averages_enlargements(side: int) -> None:
    image = photo(side, side)
    for severity, stop in enumerate((1.06, 1.11, 1.16, 1.21, 1.26), 1):
        total = image / 255
        factors = np.arange(1, stop, 0.01)
        for factor in factors:
            count = int(np.ceil(side / factor))
            top = (side - count) // 2
            window = image[top : top + count, top : top + count] / 255
            large: Any = ndimage.zoom(window, (factor, factor, 1), order=1)
            trim = (len(large) - side) // 2
            total = total + large[trim : trim + side, trim : trim + side]
        wanted = 255 * total / (len(factors) + 1)
        assert np.abs(at("zoom_blur", severity, image) - wanted + 0.5).max() < 0.51


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_noise_has_the_published_statistics(severity: int) -> None:
    image = np.full((120, 120, 3), 128, np.uint8)  # of 120 pixels: as ImageNet's 224
    level, i = 128 / 255, severity - 1
    photons, amount = (60, 25, 12, 5, 3)[i], (0.03, 0.06, 0.09, 0.17, 0.27)[i]
    for name, deviation in {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38)[i],
        "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6)[i] * level,
        "shot_noise": np.sqrt(level / photons),
    }.items():
        noisy = (at(name, severity, image) + 0.5) / 255
        if deviation < 0.2:  # else clipping shows
            assert noisy.mean() == pytest.approx(level, abs=0.004)
            assert noisy.std() == pytest.approx(deviation, rel=0.03)
    hit = at("impulse_noise", severity, image)
    values, counts = np.unique(hit, return_counts=True)
    assert set(values) == {0, 128, 255}
    np.testing.assert_allclose(counts / hit.size, [amount / 2, 1 - amount, amount / 2], atol=0.006)
    if photons == 3:
        assert set(np.unique(at("shot_noise", 5, image))) <= {0, 85, 170, 255}


def test_motion_is_half_a_gaussian_to_one_side() -> None:
    point = np.zeros((41, 41, 1))
    point[20, 20] = 1
    weights = np.exp(-(np.arange(13) ** 2) / 2 / 2**2)
    weights /= weights.sum()
    np.testing.assert_allclose(effects._smear(point, 6, 2.0, 0.0)[20, 8:21, 0], weights[::-1])
    np.testing.assert_allclose(effects._smear(point, 6, 2.0, -np.pi / 2)[20:33, 20, 0], weights)  # snow falls
    edge = effects._smear(np.ones((9, 9, 1)), 6, 2.0, 0.3)
    np.testing.assert_allclose(edge, 1)


def test_glass_replaces_pixels_by_neighbors() -> None:
    image = np.arange(32 * 32, dtype=np.float64).reshape(32, 32, 1) // 4 / 255
    moved = effects.glass_blur(image, np.random.default_rng(0), 0.05, 1, 1)
    near = [np.roll(image, (y, x), (0, 1)) for y in (0, 1) for x in (0, 1)]  # offsets are -1 and 0
    assert np.any(np.isclose(near, moved), axis=0)[2:, 2:].all()
    assert (moved != image).any()
    np.testing.assert_array_equal(moved[:2], image[:2])


def test_fog_is_scaled_to_the_maximum() -> None:
    white = np.ones((32, 32, 3))
    hazy = effects.fog(white, np.random.default_rng(0), 1.5, 1.75)
    assert (hazy.min(), hazy.max()) == pytest.approx((1 / 2.5, 1))
    roughness = []
    for decay in (1.4, 3.0):
        noise = effects._plasma(64, decay, np.random.default_rng(0))
        assert (noise.min(), noise.max()) == (0, 1)
        roughness.append(np.abs(np.diff(noise, axis=0)).mean())
    assert roughness[0] > 2 * roughness[1]


def test_an_elastic_transform_moves_but_adds_nothing() -> None:
    for shape in ((32, 32, 3), (48, 31, 1)):
        flat = np.full(shape, 90, np.uint8)
        for severity in corruptions.SEVERITIES:
            assert np.abs(at("elastic_transform", severity, flat).astype(int) - 90).max() <= 1


def test_strengths_are_those_of_the_nearest_published_size() -> None:
    scales = {32: 0.04, 45: 0.04, 46: 0.04, 64: 0.04, 119: 0.04, 120: 0.08, 224: 0.08, 500: 0.08}
    assert {side: corruptions.strength("gaussian_noise", 1, (side, 600, 3))[0] for side in scales} == scales
    assert [corruptions.strength("contrast", 1, (side, side))[0] for side in (8, 45, 46, 119, 120)] == [
        0.75, 0.75, 0.4, 0.4, 0.4,
    ]  # fmt: skip
    for name, row in CORRUPTIONS.items():
        assert [len(strengths) for strengths in row.strengths] == [5, 5, 5], name


def test_names_and_groups() -> None:
    assert len(corruptions.select("all")) == 15
    assert len(corruptions.select("all,extra")) == 19
    assert corruptions.select("noise, fog,fog") == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    with pytest.raises(InputError, match="unknown corruption: 'fogg'; did you mean 'fog'"):
        corruptions.select("noise,fogg")


def test_severities() -> None:
    for text, wanted in {"": (1, 2, 3, 4, 5), "3": (3,), "5, 1-2": (1, 2, 5), "2-2": (2,)}.items():
        assert corruptions.parse_severities(text) == wanted
    for text in ("0", "6", "a", "1-9", "-", "1,", "5-1", "1-", "-1", "1-2-3", "3,5-1"):
        with pytest.raises(InputError, match="expected 1 to 5"):
            corruptions.parse_severities(text)


def test_a_call_string_corrupts() -> None:
    assert parse_operations("resize(32)|corrupt('fog', 3)|flip_lr").host[1].name == "corrupt"
    with pytest.raises(InputError, match="severity = 6: expected int of 1 to 5"):
        parse_operations("corrupt('fog', 6)")
    with pytest.raises(InputError, match="unknown corruption 'frog'; did you mean 'fog'"):
        at("frog", 1, photo())
