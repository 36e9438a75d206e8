"""The data sets that can be used: built, or in the catalog."""

import dataclasses
import pathlib

from cnnjax.data import build_record
from cnnjax.data.catalog import DATASETS
from cnnjax.data.store import FORMAT, data_dir, find_damaged, find_prepared


@dataclasses.dataclass(frozen=True)
class AvailableDataset:
    """Describes a data set that is on disk, or that is in the catalog and is built on first use.

    Attributes:
        name: 'name', or 'name/config'.
        version: such as '1.0.0'; '' if it is not built yet.
        splits: split name -> number of examples.
        path: its folder; None if it is not built yet.
        note: its description, or why it cannot be read, or ''.
    """

    name: str
    version: str
    splits: dict[str, int]
    path: pathlib.Path | None
    note: str


def available(folder: str = "") -> list[AvailableDataset]:
    """Returns the data sets of the catalog, built or not, and then all others in the data folder, readable or not.

    `folder` is the data folder ('': see `data_dir`). Older versions on disk are among the others.
    """
    root = data_dir(folder)
    prepared = find_prepared(root)
    rows, listed = [], set()
    for name, entry in DATASETS.items():
        built = [dataset for dataset in prepared if dataset.name == name and FORMAT in dataset.formats]
        version, path = (built[-1].version, built[-1].path) if built else ("", None)
        listed.add(path)
        rows.append(AvailableDataset(name, version, entry.splits, path, entry.description))
    for dataset in prepared:
        if dataset.path not in listed:
            stored = f"stored as {dataset.formats[0]}: not readable without TensorFlow"
            note = "" if FORMAT in dataset.formats else stored
            rows.append(AvailableDataset(dataset.name, dataset.version, dataset.splits, dataset.path, note))
    for path in sorted(record.parent for record in root.glob(f"*/*/{build_record.FILE}")):
        if find_damaged(path.parent.name, root, path.name):
            note = "damaged: build it again with --overwrite"
            rows.append(AvailableDataset(path.parent.name, path.name, {}, path, note))
    return rows
