"""Cross-validation: the fold of a config as split strings."""

from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.errors import InputError


def splits_of(config: Config, data_dir: str = "") -> tuple[str, str]:
    """The training and the validation split of a config, in TFDS's syntax.

    With config.fold = 'K/N' the examples of train_split, in their order, are cut into N parts whose sizes differ by one
    at most: the K-th is the validation split, the others are the training split. Raises InputError for a data set or a
    split that does not exist, and for more folds than examples.
    """
    if not config.fold:
        return config.train_split, config.val_split
    ranges = load(config.dataset, config.train_split, data_dir).ranges
    number, folds = map(int, config.fold.split("/"))
    count = sum(stop - start for _, start, stop in ranges)
    if folds > count:
        raise InputError(f"config.fold = {config.fold!r}: {config.train_split!r} has only {count:,} examples")
    low, high = (number - 1) * count // folds, number * count // folds
    others = [_cut(ranges, 0, low), _cut(ranges, high, count)]
    return "+".join(filter(None, others)), _cut(ranges, low, high)


def _cut(ranges: list[tuple[str, int, int]], low: int, high: int) -> str:
    """The examples `low` to `high` of those in the ranges, one after the other, as a split."""
    parts, before = [], 0
    for name, start, stop in ranges:
        first, last = max(low - before, 0), min(high - before, stop - start)
        if first < last:
            parts.append(f"{name}[{start + first}:{start + last}]")
        before += stop - start
    return "+".join(parts)
