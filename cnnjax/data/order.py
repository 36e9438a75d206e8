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
    """Identifies the examples of a batch, in order.

    Attributes:
        example: index of each example in its split, int32 [B].
        epoch: how often each example was used before, int32 [B].
        position: what seeds the random host operations of each example, int64 [B]; None for its place in the stream of
            batches.
    """

    example: np.ndarray
    epoch: np.ndarray
    position: np.ndarray | None = None


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of the examples in an epoch: int64 [count], a permutation of 0 to count - 1.

    It depends on the arguments alone: it is the argsort of Philox's raw bits, which are the same in every version of
    NumPy. It must never change, or runs could be neither repeated nor resumed. Results are cached: do not modify them.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable")


def batch_indices(seed: int, step: int, batch_size: int, count: int, repeats: int = 1) -> Indices:
    """Returns the Indices of the training batch of `step`, counted from 0, in a split of `count` examples.

    Every epoch is a new permutation of the split, drawn from `seed` and the epoch. Batches are cut from the endless
    sequence of epochs, so a batch may contain the end of one epoch and the start of the next.

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
