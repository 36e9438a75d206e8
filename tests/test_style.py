"""The house style: colors for all eyes, labels that do not overlap, exact pixels, and the same file each time."""

import io
import itertools
import pathlib
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from cnnjax import colors, style

# Machado et al. 2009, severity 1: linear RGB as people see it whose eyes lack one kind of cone.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
LOOKS_DIFFERENT = 0.05  # distance in Oklab; 0.02 is just noticeable side by side


def seen(rgb: np.ndarray, eyes: str) -> np.ndarray:
    """Oklab of sRGB colors [..., 3] as these eyes see them."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ EYES[eyes].T, 0, 1)
    return colors.to_oklab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def pixels(figure: object) -> np.ndarray:
    data = io.BytesIO()
    figure.savefig(data, dpi=style.DPI)  # type: ignore[attr-defined]
    return np.asarray(Image.open(data).convert("RGB"))


# -------------------------------------------------------------------------------------------------------------- colors


@pytest.mark.parametrize("eyes", EYES)
def test_colors_of_lines_differ_from_each_other_and_from_paper_for_all_eyes(eyes: str) -> None:
    lab = seen(np.array([to_rgb(color) for color in colors.COLORS]), eyes)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > LOOKS_DIFFERENT
    assert (1 - lab[:, 0]).min() > 0.2  # darker than paper
    right, wrong = (seen(np.array(to_rgb(color)), eyes) for color in (colors.RIGHT, colors.WRONG))
    assert np.linalg.norm(right - wrong) > 3 * LOOKS_DIFFERENT


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("name", ["sequential", "diverging", "plasma"])
def test_color_maps_have_even_steps_and_an_order_that_all_eyes_see(name: str, eyes: str) -> None:
    lab = seen(colors.color_map(name)(np.linspace(0, 1, 33))[:, :3], eyes)
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.min() > 0.006
    if eyes == "all cones" and name != "plasma":
        assert steps.max() < 1.6 * steps.min()
    rising = np.diff(lab[:, 0])
    if name == "diverging":
        assert (rising[:16] > 0).all()
        assert (rising[16:] < 0).all()
        assert np.linalg.norm(lab[4] - lab[-5]) > 3 * LOOKS_DIFFERENT  # the sign shows
    else:
        assert (rising > 0).all() or (rising < 0).all()


def test_zero_is_neutral_gray_in_signed_images() -> None:
    gray = colors.signed(np.zeros((2, 3)))
    assert np.ptp(gray) < 1e-6
    np.testing.assert_array_equal(colors.signed(np.array([[0.0, -2, 2, np.nan]]))[0, [0, 3]], gray[0, :2])
    for image in (np.array([[1.0, -1]]), np.array([[[1.0], [-1]]])):
        (red, _, blue), (red2, _, blue2) = colors.signed(image)[0]
        assert red > blue
        assert red2 < blue2
    np.testing.assert_allclose(colors.signed(np.array([[[0.0, -2, 1]]])), [[[0.5, 0, 0.75]]])
    np.testing.assert_allclose(colors.signed(np.array([[[0.0, -2, 1]]]), limit=4), [[[0.5, 0.25, 0.625]]])


def test_a_heat_map_colors_an_image_where_it_is_high() -> None:
    image, values = np.full((2, 2, 3), 100, np.uint8), np.array([[0.0, 1], [-1, np.nan]])
    over = colors.overlay(image, values)
    for place in ((0, 0), (1, 0), (1, 1)):
        np.testing.assert_allclose(over[place], 100 / 255, atol=1e-4)
    assert np.ptp(over[0, 1]) > 0.3
    assert np.ptp(colors.overlay(image, values, limit=100)[0, 1]) < 0.05
    with pytest.raises(ValueError, match=r"a heat map of \(2, 3\) on an image of \(2, 2\)"):
        colors.overlay(image, np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 2)])
def test_images_of_every_kind_become_rgb(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    rgb = colors.as_rgb(image)
    assert (rgb.shape, rgb.dtype) == ((4, 5, 3), np.float32)
    np.testing.assert_allclose(colors.as_rgb((image / 255).astype(np.float32)), rgb, atol=1e-6)
    np.testing.assert_array_equal(colors.as_rgb(np.array([[-1, 2, np.nan]]))[0, :, 0], [0, 1, 0.5])


# --------------------------------------------------------------------------------------------------------------- lines


def test_28_lines_differ() -> None:
    assert len({tuple(style.line_style(i).values()) for i in range(28)}) == 28


def test_the_style_stays_inside() -> None:
    before = dict(matplotlib.rcParams)
    with style.house():
        assert matplotlib.rcParams["axes.spines.top"] is False
    style.sheet([np.zeros((2, 2))], title="a")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("places", "gap", "expected"),
    [
        ([], 0.1, []),
        ([0.2, 0.8], 0.1, [0.2, 0.8]),
        ([0.5, 0.5], 0.1, [0.45, 0.55]),
        ([0.0, 0.0, 0.5], 0.1, [0.0, 0.1, 0.5]),
        ([0.99, 1.0, 1.0], 0.2, [0.6, 0.8, 1.0]),
        ([0.5] * 4, 0.5, [0.0, 0.5, 1.0, 1.5]),  # which do not fit
    ],
)
def test_labels_move_apart_as_little_as_possible(places: list[float], gap: float, expected: list[float]) -> None:
    np.testing.assert_allclose(style.spread(places, gap), expected, atol=1e-12)


def test_lines_are_labeled_at_their_ends_without_overlaps() -> None:
    with style.house():
        figure = style.new_figure(6, 4)
        axes = figure.add_subplot()
        for i in range(9):
            axes.plot([0, 1, 2], [0, 1, 1 + i / 1000], label=f"$arm {i}", **style.line_style(i))
        axes.plot([0, 2], [0, 0], label="_without a label")
        axes.plot([0, 1, np.nan], [0, 0.5, np.nan], label="shorter")
        axes.plot([], [], label="empty")
        style.label_lines(axes)
        figure.draw_without_rendering()
    texts = sorted(axes.texts, key=lambda text: Text.get_window_extent(text).y0)  # an Annotation's has its line too
    assert [text.get_text() for text in texts] == ["shorter", *(f"$arm {i}" for i in range(9))]
    boxes = [Text.get_window_extent(text) for text in texts]
    assert all(a.y1 <= b.y0 + 1 for a, b in itertools.pairwise(boxes))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1 + 1  # the axes have made room
    assert [text.get_color() for text in texts[1:]] == [style.line_style(i)["color"] for i in range(9)]


def test_texts_are_cut_and_wrapped_to_inches() -> None:
    text = "a text of several words that goes on and on"
    cut = style.fitted(text, 1, 8)
    assert cut.endswith("…")
    assert 0.9 < style.text_width(cut, 8) <= 1
    assert style.fitted("short", 1, 8) == "short"
    lines = style.wrap(text, 1, 8).split("\n")
    assert " ".join(lines) == text
    assert max(style.text_width(line, 8) for line in lines) <= 1
    assert style.wrap("two\nlines", 9, 8) == "two\nlines"


# -------------------------------------------------------------------------------------------------------------- sheets


@pytest.mark.parametrize("count", [1, 3, 10])
def test_pixels_on_a_sheet_are_squares_of_the_exact_colors(count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3)).astype(np.uint8)
    figure = style.sheet(list(images), [f"number {i}" for i in range(count)], title="pixels", note="exact", columns=3)
    picture = pixels(figure)
    assert picture.shape[:2] == tuple(int(length) for length in figure.bbox.size[::-1].round())
    factor = int(1.2 * style.DPI) // 7
    for image in images:
        block = image.repeat(factor, axis=0).repeat(factor, axis=1)
        starts = np.argwhere((picture[: -len(block) + 1] == block[0, 0]).all(axis=2))
        assert any(np.array_equal(picture[y : y + len(block), x : x + block.shape[1]], block) for y, x in starts)


def test_large_images_are_reduced_and_keep_their_aspect() -> None:
    picture = pixels(style.sheet([np.zeros((400, 1000), np.uint8)], cell=0.5))
    dark = np.argwhere((picture < 10).all(axis=2))
    assert (np.ptp(dark, axis=0) + 1).tolist() == [40, 100]


def test_a_sheet_is_at_most_a_slide_wide_and_has_its_titles() -> None:
    images = [np.zeros((8, 8)) if i % 3 else None for i in range(96)]
    figure = style.sheet(
        images, ["a caption that is much too long for its image"] * 96, columns=12, row_titles=["first row"] * 8,
        column_titles=[f"column {i}" for i in range(12)], title="a title " * 30, caption_colors=["#d55e00"] * 96,
    )  # fmt: skip
    width = figure.bbox.width
    assert width <= 1.01 * style.FULL_WIDTH * style.DPI
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
    captions = [text for text in figure.axes[0].texts if text.get_text().startswith("a c")]
    assert len(captions) == 96
    assert all(text.get_text().endswith("…") for text in captions)


def test_a_sheet_of_many_images_fits_on_a_slide() -> None:
    for count in (1, 2, 6, 9, 24, 50, 96):
        width, height = style.sheet([np.zeros((8, 8))] * count, title="a").get_size_inches()
        assert width <= style.FULL_WIDTH * 1.01
        assert height <= style.SLIDE_HEIGHT * 1.05, count


# --------------------------------------------------------------------------------------------------------------- files


def test_the_same_picture_is_the_same_file(tmp_path: pathlib.Path) -> None:
    @style.house()
    def draw(folder: str) -> list[pathlib.Path]:
        figure = style.new_figure(4, 3)
        figure.add_subplot(xlabel="epoch").plot([0, 1], [2, 3])
        style.set_title(figure, "a $title", "a _note_")
        return style.save(figure, tmp_path / folder / "v1.5", (".png", ".svg", ".pdf"))

    first, second = draw("a"), draw("b/c")
    assert [path.name for path in first] == ["v1.5.png", "v1.5.svg", "v1.5.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as image:
        assert image.size == (800, 600)
    assert xml.etree.ElementTree.parse(first[1]).getroot().tag.endswith("svg")
    assert first[2].read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.rglob("*.part"))
