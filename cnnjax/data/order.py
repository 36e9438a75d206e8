"""Data order: which examples the batch of a step holds, as a function of (seed, step) alone.

Training examples form one endless stream: each epoch is a new permutation of the whole split, and the stream is cut
into batches without regard for the end of an epoch. So each epoch uses every example exactly once, and any batch can
be computed from its step alone. With repeated augmentation a batch holds fewer distinct examples, several times each,
and the stream advances that much more slowly.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Indices:
    """The examples of a batch, in order. Both arrays are int32 [B]."""

    example: np.ndarray  # index in the split
    epoch: np.ndarray  # number of times that the example was used before


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of `count` examples in an epoch, int64 [count].

    It is the argsort of Philox's raw bits, which are the same in every version of NumPy. It must never change: runs
    could be neither repeated nor resumed.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable")


def batch_indices(seed: int, step: int, batch_size: int, count: int, repeats: int = 1) -> Indices:
    """Returns the examples in the batch of `step`, counted from 0, of a split of `count` examples.

    With `repeats`, the batch is `batch_size // repeats` distinct examples, tiled `repeats` times. Each copy has an
    `epoch` of its own and so is augmented differently (Hoffer et al. 2020, Augment Your Batch).
    """
    distinct = batch_size // repeats
    position = np.arange(step * distinct, (step + 1) * distinct)
    epoch, offset = position // count, position % count
    example = np.empty(distinct, np.int32)
    for e in np.unique(epoch):
        example[epoch == e] = permutation(seed, int(e), count)[offset[epoch == e]]
    uses = repeats * epoch + np.arange(repeats)[:, None]
    return Indices(np.tile(example, repeats), uses.astype(np.int32).ravel())
