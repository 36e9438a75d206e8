"""Accuracy by group: how well a network does on parts of a split that a table names."""

import csv
import dataclasses
import io
import os
import pathlib

import numpy as np

from cnnjax.data.store import Split
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.report import Section, write_csv

Z = 1.96  # standard deviations on either side: intervals of 95 %
NO_GROUP = "(no group)"


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of the images of a split.

    Attributes:
      names: name of each group.
      members: int [N], the group of each image, an index in `names`; -1 for an image without one.
    """

    names: tuple[str, ...]
    members: np.ndarray


def find_groups(source: pathlib.Path | str, examples: Split) -> Groups:
    """Returns the groups of the images of a split: from a CSV file, or another label of the data set.

    `source` is the file (see `read_groups`), or the name of one of `examples.extra_labels`, such as 'coarse_label' of
    CIFAR-100. Raises InputError if it is neither.
    """
    if str(source) not in examples.extra_labels:
        if examples.extra_labels and not os.path.exists(source):
            raise unknown(f"file, or label of {examples.name},", str(source), examples.extra_labels)
        return read_groups(source, len(examples))
    found, members = np.unique(examples.read_extra_label(str(source)), return_inverse=True)
    return Groups(tuple(examples.extra_labels[str(source)][k] for k in found), members)


def read_groups(path: pathlib.Path | str, count: int) -> Groups:
    """Reads the groups of the `count` images of a split from a CSV file with two columns: index, group.

    An index counts from 0 in the order of the split. The first line may be a header. Groups are in ascending order, of
    numbers or of names. Images that the file does not list have no group. Raises InputError for a file that does not
    exist, an index that is out of range or that occurs twice, and for a row without a group.
    """
    try:
        rows = list(csv.reader(io.StringIO(pathlib.Path(path).read_text("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: {reason}; expected a CSV file with two columns: index, group") from error
    group_of: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and not cells[0].isdecimal()):  # an empty line, a header
            continue
        if len(cells) != 2 or not cells[0].isdecimal() or not cells[1]:
            raise InputError(f"{path}, line {number}: {','.join(row)!r}; expected an image's index and its group")
        if (index := int(cells[0])) >= count:
            raise InputError(f"{path}, line {number}: index {index}; the split has {count:,} images, 0 to {count - 1}")
        if index in group_of:
            raise InputError(f"{path}, line {number}: index {index} is listed twice")
        group_of[index] = cells[1]
    if not group_of:
        raise InputError(f"{path} lists no image; expected two columns: index, group")
    names = sorted(set(group_of.values()), key=_sort_key)
    members = np.full(count, -1)
    members[list(group_of)] = [names.index(name) for name in group_of.values()]
    return Groups(tuple(names), members)


def _sort_key(name: str) -> tuple[int, int, str]:
    """Returns a key that puts numbers first, by value, and then names."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def accuracy_by_group(groups: Groups, is_correct: np.ndarray) -> dict[str, np.ndarray]:
    """Returns columns with a row for each group: "group", "images", "right", "accuracy", "low" and "high".

    `is_correct` is bool [N]. "low" and "high" are the ends of Wilson's interval of 95 % for the accuracy (Wilson 1927).
    If some images have no group, the last row, NO_GROUP, is theirs.
    """
    names = [*groups.names, *([NO_GROUP] if (groups.members < 0).any() else [])]
    members = np.where(groups.members < 0, len(groups.names), groups.members)
    images = np.bincount(members, minlength=len(names))
    right = np.bincount(members, is_correct, minlength=len(names))
    accuracy = right / images
    center = (accuracy + Z**2 / (2 * images)) / (1 + Z**2 / images)
    width = Z * np.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2)) / (1 + Z**2 / images)
    columns = {"images": images, "right": right.astype(int), "accuracy": accuracy, "low": center - width}
    return {"group": np.array(names), **columns, "high": center + width}


def groups_section(groups: Groups, is_correct: np.ndarray) -> Section:
    """Returns the part of a report on the accuracy of each group.

    metrics.json gets "per_group" {name: accuracy} and "worst_group_accuracy"; per_group.csv the columns of
    `accuracy_by_group`.
    """
    table = accuracy_by_group(groups, is_correct)
    per_group = {str(name): float(value) for name, value in zip(table["group"], table["accuracy"], strict=True)}
    entries = {"per_group": per_group, "worst_group_accuracy": min(per_group.values())}
    return Section(entries, lambda folder: write_csv(folder / "per_group.csv", table))
