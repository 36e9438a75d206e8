"""Near-duplicates: images of one split that are in another one, too, changed a little, recolored or mirrored.

A network trained on one of the two has seen the other, too (Barz & Denzler 2020, J. Imaging 6(6), arXiv:1902.00423,
found 3.3 % of CIFAR-10's test images in its training split by features of a network and by eye).
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax import colors, style, tables
from cnnjax.data import images, pipeline, split_cache, transforms
from cnnjax.data.imagenet import readable
from cnnjax.data.store import Split, overlap
from cnnjax.errors import InputError

SIDE = 32  # pixels to which each image is reduced
FREQUENCIES = 8  # lowest ones of its cosine transform, in each direction
IMAGES_PER_BLOCK = 500
SIMILARITIES_PER_CHUNK = 2**25
MANY = 0.2  # fraction of images with a near-duplicate that is too high to believe
PAIRS_SHOWN, COLUMNS = 12, 8  # on the sheet


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images of two splits, the most similar first.

    Attributes:
      splits: the two splits, such as ("test", "train"); equal if a split was searched in itself, each pair once.
      sizes: the number of images of each.
      indices: int [M], images of the first split.
      matches: int [M], for each the most similar image of the second split.
      similarities: float32 [M], from the smallest that counts to 1.
      mirrored: bool [M], whether the match is mirrored.
      labels: int [2, M], labels of both.
      images: the first pairs, uint8 [H, W, C] each.
      dataset: name of the data set.
      classes: names of its classes.
    """

    splits: tuple[str, str]
    sizes: tuple[int, int]
    indices: np.ndarray
    matches: np.ndarray
    similarities: np.ndarray
    mirrored: np.ndarray
    labels: np.ndarray
    images: Sequence[tuple[np.ndarray, np.ndarray]]
    dataset: str
    classes: Sequence[str]

    @property
    def note(self) -> str:
        """Returns a line with the number of images that have a near-duplicate or, within a split, of pairs."""
        found, size, (split, against) = len(self.indices), self.sizes[0], self.splits
        others = int((self.labels[0] != self.labels[1]).sum())
        hint = "; simple pictures are alike: try a higher similarity" if found > MANY * size else ""
        found_text = f"{found:,} of {size:,} images of {split} ({found / size:.2%}) have a near-duplicate in {against}"
        if split == against:  # an image may be in several pairs
            found_text = f"{found:,} pairs of near-duplicates among the {size:,} images of {split}"
        mirrored = f"{int(self.mirrored.sum()):,} of them mirrored"
        return f"{self.dataset}: {found_text}, {mirrored}; {others:,} pairs have different labels{hint}"

    def figure(self) -> Any:
        """Draws the first pairs beside each other, with the indices and labels of both: a matplotlib Figure."""
        names, cells, captions, caption_colors = readable(self.classes), [], [], []
        for row, pair in enumerate(self.images):
            cells += pair
            for k, index in enumerate((self.indices[row], self.matches[row])):
                captions.append(f"{self.splits[k]} {index}\n{names[self.labels[k, row]]}")
                caption_colors.append(colors.WRONG if self.labels[0, row] != self.labels[1, row] else colors.INK)
        title = f"Near-duplicates: {self.dataset}, {self.splits[0]} and {self.splits[1]}"
        note = f"{self.note}. Pairs side by side, the most similar first: split and index, label."
        options = {"columns": COLUMNS, "title": title, "note": note, "caption_colors": caption_colors}
        return style.sheet(cells, captions, cell=1, **options)

    def save(self, folder: pathlib.Path) -> None:
        """Writes duplicates.csv, the most similar first, and duplicates.png and .svg into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = zip(self.indices, self.matches, self.similarities, self.mirrored, *self.labels, strict=True)
        rows = [
            [str(i), str(j), f"{similarity:.4f}", "yes" if flip else "no", self.classes[a], self.classes[b]]
            for i, j, similarity, flip, a, b in numbers
        ]
        headings = ["index", "match", "similarity", "mirrored", "label", "match_label"]
        (folder / "duplicates.csv").write_text("\n".join(tables.as_csv(tables.Table(headings, rows))) + "\n")
        if self.images:
            style.save(self.figure(), folder / "duplicates")


def find_duplicates(examples: Split, against: Split, similarity: float = 0.9, count: int = PAIRS_SHOWN) -> Duplicates:
    """Finds the images of a split that have a near-duplicate in another split of the data set, or in the split itself.

    The similarity of two images is the correlation of the lowest frequencies of their cosine transforms, each divided
    by its standard deviation over the data set. So it ignores color, brightness and contrast, and a mirrored image is
    compared as well. At 0.9, nearly all pairs of photographs show the same scene; simple pictures, such as digits, are
    alike without being duplicates. Images of one color have no match.

    Args:
      examples: the split whose images may have duplicates.
      against: the split to search.
      similarity: the smallest that counts.
      count: number of pairs whose images are loaded.

    Raises:
      InputError: a similarity outside (0, 1], or two splits that have some images in common, but not all.
    """
    if not 0 < similarity <= 1:
        raise InputError(f"similarity = {similarity}: expected more than 0 and at most 1")
    is_same = list(examples.ranges) == list(against.ranges)
    if not is_same and overlap(examples.ranges, against.ranges):
        raise InputError(f"{examples.split!r} and {against.split!r} have images in common: expected none, or the same")
    against = examples if is_same else against
    first, labels = _transforms(examples)
    second, other_labels = (first, labels) if is_same else _transforms(against)
    deviation = np.maximum(second.std(axis=0), 1e-3 * second.std() + 1e-9)
    matches, similarities, mirrored = _most_similar(_unit(first / deviation), _unit(second / deviation), is_same)
    found = np.flatnonzero(similarities >= similarity)
    if is_same:  # each pair once
        found = found[(found < matches[found]) | (matches[matches[found]] != found)]
    found = found[np.argsort(-similarities[found], kind="stable")]
    shown = zip(examples.read(found[:count])[0], against.read(matches[found[:count]])[0], strict=True)
    return Duplicates(
        (examples.split, against.split), (len(examples), len(against)), found, matches[found],
        np.minimum(similarities[found], 1), mirrored[found], np.stack([labels[found], other_labels[matches[found]]]),
        list(shown), examples.name, examples.classes,
    )  # fmt: skip


def _transforms(examples: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest frequencies of each image, float32 [N, FREQUENCIES**2 - 1], and the labels, int32 [N].

    They are cached on disk.
    """
    from scipy.fft import dctn

    def compute() -> split_cache.Arrays:
        blocks = np.array_split(np.arange(len(examples)), -(-len(examples) // IMAGES_PER_BLOCK))
        with concurrent.futures.ThreadPoolExecutor(pipeline.cores()) as pool:
            parts = list(pool.map(block, blocks))
        return {
            "transforms": np.concatenate([part[0] for part in parts]),
            "labels": np.concatenate([p[1] for p in parts]),
        }

    def block(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = examples.read(indices)
        gray = np.stack([transforms.resize(images.to_channels(image, 1), (SIDE, SIDE))[:, :, 0] for image in pixels])
        frequencies = np.asarray(dctn(gray.astype(np.float32), axes=(1, 2), norm="ortho"))
        lowest = frequencies[:, :FREQUENCIES, :FREQUENCIES]
        return lowest.reshape(len(gray), -1)[:, 1:], labels  # without the mean brightness

    arrays = split_cache.cached_arrays(examples, (), compute, "duplicates", SIDE, FREQUENCIES)
    return arrays["transforms"], arrays["labels"]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [N, D] divided by their lengths; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-6)


def _most_similar(first: np.ndarray, second: np.ndarray, is_same: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each vector of `first` the most similar one of `second`, its similarity, and whether it is mirrored.

    Vectors are of length 1, [N, D] and [M, D]. With `is_same`, a vector is not compared with itself.
    """
    frequency = np.tile(np.arange(FREQUENCIES), FREQUENCIES)[1:]
    mirror = np.where(frequency % 2, -1, 1).astype(np.float32)  # cosines of odd frequency change their sign
    matches, similarities = np.zeros(len(first), int), np.full(len(first), -1, np.float32)
    mirrored = np.zeros(len(first), bool)
    rows = max(1, SIMILARITIES_PER_CHUNK // len(second))
    for start in range(0, len(first), rows):
        chunk = slice(start, start + rows)
        for flip in (False, True):
            products = (first[chunk] * (mirror if flip else 1)) @ second.T
            if is_same:
                products[np.arange(len(products)), start + np.arange(len(products))] = -1
            best = products.argmax(axis=1)
            value = products[np.arange(len(products)), best]
            better = np.flatnonzero(value > similarities[chunk])
            matches[start + better], similarities[start + better] = best[better], value[better]
            mirrored[start + better] = flip
    return matches, similarities, mirrored
