"""Cross-validation: the training and validation split of a fold."""

from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.data.store import ExampleRange
from cnnjax.errors import InputError


def resolve_splits(config: Config, data_dir: str = "") -> tuple[str, str]:
    """Returns the training and the validation split of a config, as two strings in TFDS's syntax.

    Without a config.fold, they are its train_split and val_split. With config.fold = 'K/N', K from 1 to N, train_split
    is cut, in order, into N folds whose sizes differ by at most one: fold K is the validation split, the other folds
    are the training split. Raises InputError for a data set or a split that does not exist, and for more folds than
    examples.
    """
    if not config.fold:
        return config.train_split, config.val_split
    ranges = load(config.dataset, config.train_split, data_dir).ranges
    number, folds = map(int, config.fold.split("/"))
    count = sum(stop - start for _, start, stop in ranges)
    if folds > count:
        raise InputError(f"config.fold = {config.fold!r}: {config.train_split!r} has only {count:,} examples")
    low, high = (number - 1) * count // folds, number * count // folds
    train = [_slice(ranges, 0, low), _slice(ranges, high, count)]
    return "+".join(filter(None, train)), _slice(ranges, low, high)


def _slice(ranges: list[ExampleRange], low: int, high: int) -> str:
    """Returns the split string of the examples `low` to `high` - 1, counted across all `ranges`; '' for none."""
    slices, offset = [], 0
    for split, start, stop in ranges:
        first, last = max(low - offset, 0), min(high - offset, stop - start)
        if first < last:
            slices.append(f"{split}[{start + first}:{start + last}]")
        offset += stop - start
    return "+".join(slices)
