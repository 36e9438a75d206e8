"""Data order: a function of (seed, step); every epoch has every example once."""

import numpy as np
import pytest

from cnnjax.data import order

# Never to be changed: with another order, no run of before could be repeated or gone on with.
GOLDEN = {
    (0, 0): [0, 2, 9, 1, 8, 5, 4, 3, 6, 7],
    (0, 1): [5, 3, 7, 8, 2, 4, 1, 0, 6, 9],
    (1, 0): [3, 5, 2, 9, 7, 0, 8, 6, 1, 4],
}


@pytest.mark.parametrize(("seed", "epoch"), GOLDEN)
def test_the_order_never_changes(seed: int, epoch: int) -> None:
    assert order.permutation(seed, epoch, 10).tolist() == GOLDEN[seed, epoch]


def test_the_order_crosses_from_one_epoch_into_the_next() -> None:
    assert order.batch_indices(seed=0, step=1, batch_size=7, count=10).example.tolist() == [3, 6, 7, 5, 3, 7, 8]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 1), (10, 5), (10, 3), (97, 10), (10, 25), (1, 4)])
def test_each_epoch_has_every_example_once(count: int, batch_size: int) -> None:
    epochs = 3
    steps = -(-epochs * count // batch_size)
    batches = [order.batch_indices(3, step, batch_size, count).example for step in range(steps)]
    assert {batch.shape for batch in batches} == {(batch_size,)}
    stream = np.concatenate(batches)[: epochs * count].reshape(epochs, count)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(count), (epochs, 1)))
    if count > 10:
        assert len(np.unique(stream, axis=0)) == epochs


def test_the_order_depends_on_seed_and_step_alone() -> None:
    first = order.batch_indices(5, 40, 16, 100).example
    for step in range(10):
        order.batch_indices(6, step, 32, 100)
    order.permutation.cache_clear()
    np.testing.assert_array_equal(order.batch_indices(5, 40, 16, 100).example, first)
    assert not np.array_equal(order.batch_indices(6, 40, 16, 100).example, first)


@pytest.mark.parametrize("repeats", [2, 3, 6])
def test_repeats_put_each_example_of_a_batch_in_it_so_often(repeats: int) -> None:
    count, size = 10, 12
    batches = [order.batch_indices(3, step, size, count, repeats) for step in range(10 * repeats)]
    for batch in batches:
        np.testing.assert_array_equal(batch.example, np.tile(batch.example[: size // repeats], repeats))
    stream = np.concatenate([batch.example[: size // repeats] for batch in batches])
    np.testing.assert_array_equal(stream, np.concatenate([order.permutation(3, e, count) for e in range(12)]))
    seen: dict[int, list[int]] = {}  # how often before, each time
    for batch in batches:
        for example, epoch in zip(batch.example, batch.epoch, strict=True):
            seen.setdefault(int(example), []).append(int(epoch))
    assert all(sorted(epochs) == list(range(12 * repeats)) for epochs in seen.values())
