"""Host operations: sizes, pixels and distributions of resizing and cropping."""

import numpy as np
import pytest
from PIL import Image

from cnnjax import spec
from cnnjax.data import images, transforms
from cnnjax.data.transforms import HOST_OPS
from cnnjax.errors import InputError


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_sizes(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (30, 50, 3), np.uint8)
    for call, shape in {
        "resize(15)": (15, 25, 3),
        "resize((15, 60))": (15, 60, 3),
        "center_crop(20)": (20, 20, 3),
        "center_crop((10, 40))": (10, 40, 3),
        "random_crop(30)": (30, 30, 3),
        "random_resize(15, 15)": (15, 25, 3),
        "random_resized_crop(7)": (7, 7, 3),
        "random_resized_crop((9, 5), scale=(0.5, 1.0))": (9, 5, 3),
    }.items():
        for image in (wide, wide[..., :1]):
            got = spec.build("operation", call, HOST_OPS, image=image, rng=rng)
            assert (got.shape, got.dtype) == ((*shape[:2], image.shape[2]), np.uint8), call


def test_a_gray_image_gets_three_channels_and_a_colored_one_stays():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    assert transforms.rgb(image) is image
    np.testing.assert_array_equal(transforms.rgb(image[:, :, :1]), image[:, :, [0, 0, 0]])


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_resizing_averages_down_and_interpolates_up(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    blocks = image.reshape(4, 2, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(transforms.resize(image, (4, 4)) - blocks).max() < (0.6 if images.cv2 else 1.1)  # Pillow rounds twice
    thin = transforms.resize(image, (4, 24))  # down in one direction, up in the other
    assert np.abs(transforms.resize(thin, (4, 12)).astype(int) - image.reshape(4, 2, 12, 3).mean(axis=1)).max() < 60
    np.testing.assert_array_equal(transforms.resize(image, (8, 12)), image)
    ramp = np.tile(np.array([[[0], [100]]], np.uint8), (2, 1, 1))
    np.testing.assert_allclose(transforms.resize(ramp, (2, 4))[0, :, 0], [0, 25, 75, 100], atol=1)


@pytest.mark.parametrize("size", [5, 16, 40, (9, 31), (50, 20)], ids=str)
@pytest.mark.parametrize("filter_name", ["nearest", "bilinear", "bicubic"])
def test_the_filters_are_those_of_pillow(filter_name: str, size: int | tuple[int, int]) -> None:
    """And so those of torchvision and timm, which resize with Pillow, down and up, with the same rounding of sides."""
    for shape in ((16, 23, 3), (23, 16, 1), (16, 16, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        got = transforms.resize(image, size, filter=filter_name)
        short = min(shape[:2])
        height, width = (int(size * side / short) for side in shape[:2]) if isinstance(size, int) else size
        picture = Image.fromarray(image.squeeze())
        wanted = np.asarray(picture.resize((width, height), Image.Resampling[filter_name.upper()]))
        assert np.abs(got.astype(int) - wanted.reshape(height, width, -1)).max() <= 1


def test_without_antialiasing_pixels_between_the_samples_do_not_count() -> None:
    image = np.zeros((8, 8, 1), np.uint8)
    image[:, 3::4] = 255  # the samples of 8 -> 2 are at 1.5 and 5.5: between the columns 1, 2 and 5, 6
    assert transforms.resize(image, 2, filter="bilinear", antialias=False).max() == 0
    assert transforms.resize(image, 2, filter="bilinear").min() > 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("resize(8, filter='bilinaer')", "unknown filter of resize: 'bilinaer'; did you mean 'bilinear'"),
        ("resize(8, filter='bicubic', antialias=False)", "only 'bilinear' supports this"),
        ("resize(60_000)", r"resize\(60000\): the result is 60000x60000, 3,600,000,000 pixels: more than the limit"),
        ("resize(90_000)", r"size = 90000: expected int of 1 to 65,535"),
    ],
)
def test_what_cannot_be_resized(call: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec.build("operation", call, HOST_OPS, image=np.zeros((8, 8, 3), np.uint8), rng=None)


def test_crops_are_windows_drawn_evenly_from_the_generator():
    image = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1)
    np.testing.assert_array_equal(transforms.center_crop(image, (4, 3)), image[1:5, 2:5])
    corners = [int(transforms.random_crop(image, np.random.default_rng(i), 5)[0, 0, 0]) for i in range(600)]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert counts.keys() == {0, 1, 2, 7, 8, 9}
    assert min(counts.values()) > 60
    one, two = (transforms.random_crop(image, np.random.default_rng(3), 5) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(InputError, match=r"center_crop\(8\): the image is 6x7; resize it first"):
        transforms.center_crop(image, 8)


def test_scale_jitter_draws_the_shorter_side_evenly_and_keeps_the_aspect():
    image = np.zeros((10, 20, 3), np.uint8)
    shapes = [transforms.random_resize(image, np.random.default_rng(i), 4, 7).shape for i in range(400)]
    counts = {side: shapes.count((side, 2 * side, 3)) for side in (4, 5, 6, 7)}
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 60
    with pytest.raises(InputError, match=r"random_resize\(7, 4\): expected the smaller length first"):
        transforms.random_resize(image, np.random.default_rng(0), 7, 4)


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_random_resized_crop_averages_only_what_shrinks_to_less_than_half(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    image = np.zeros((12, 12, 1), np.uint8)
    image[:, ::3] = 90  # one column of three

    def crop(sides: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng(0)
        return transforms.random_resized_crop(image, rng, sides, scale=(1.0, 1.0), ratio=(1.0, 1.0))[:, :, 0]

    np.testing.assert_array_equal(crop((12, 4)), np.full((12, 4), 30))
    columns = (np.arange(8) + 0.5) * 1.5 - 0.5  # the centers of the new pixels among the old ones
    left, share = np.floor(columns).astype(int), columns % 1
    expected = image[0, left, 0] * (1 - share) + image[0, np.minimum(left + 1, 11), 0] * share
    np.testing.assert_allclose(crop((12, 8)), np.tile(expected, (12, 1)), atol=1)


def test_random_resized_crop_draws_area_and_aspect(monkeypatch):
    windows = []
    monkeypatch.setattr(transforms, "_resize_fast", lambda image, *sides: windows.append(image.shape[:2]) or image)
    image = np.zeros((100, 100, 1), np.uint8)
    for i in range(500):
        transforms.random_resized_crop(image, np.random.default_rng(i), 8)
    area = np.array([h * w for h, w in windows]) / 1e4
    aspect = np.array([w / h for h, w in windows])
    assert area.min() < 0.13
    assert area.max() > 0.85
    assert 0.45 < area.mean() < 0.6  # uniform over [0.08, 1], less the largest that do not fit
    assert 0.7 < aspect.min() < 0.8 < 1.25 < aspect.max() < 1.45
    assert abs(np.log(aspect).mean()) < 0.03
    windows.clear()
    transforms.random_resized_crop(np.zeros((10, 1000, 1), np.uint8), np.random.default_rng(0), 8, scale=(1.0, 1.0))
    assert windows == [(10, 13)]  # nothing of that area fits: the middle, as wide as it may be


def test_a_move_mirrors_into_what_it_leaves_free():
    image = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    np.testing.assert_array_equal(transforms.move(image, 1, 0)[..., 0], image[[1, 0, 1, 2], :, 0])
    np.testing.assert_array_equal(transforms.move(image, 0, -2)[..., 0], image[:, [2, 3, 4, 3, 2], 0])
    np.testing.assert_array_equal(transforms.move(transforms.move(image, -1, 2), 1, -2)[1:, :3], image[1:, :3])
    with pytest.raises(InputError, match=r"move\(4, 0\): the image is 4x5, smaller than that"):
        transforms.move(image, 4, 0)
