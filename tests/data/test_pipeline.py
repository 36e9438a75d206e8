"""Batches: their order is a function of (seed, step), every example counts once, wherever the images live."""

import os
import pathlib
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from cnnjax import spec
from cnnjax.augment import normalize
from cnnjax.data import build, pipeline, split_cache
from cnnjax.data.images import HOST_OPS, encode_png
from cnnjax.data.store import Split
from cnnjax.distributed import sharding
from cnnjax.errors import InputError

# Never to be changed: with another order, no run of before could be repeated or gone on with.
GOLDEN = {
    (0, 0): [0, 2, 9, 1, 8, 5, 4, 3, 6, 7],
    (0, 1): [5, 3, 7, 8, 2, 4, 1, 0, 6, 9],
    (1, 0): [3, 5, 2, 9, 7, 0, 8, 6, 1, 4],
}


@pytest.fixture(scope="module")
def digits(digits_dir: str) -> Split:
    return build.load("digits", "train[:100]", digits_dir)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Twelve pictures of different sizes."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = root / "source" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)))
    build.build("photographs", str(root / "source"), str(root), log=lambda _: None)
    return build.load("photographs", "train", str(root))


def mesh(devices: int) -> Mesh:
    return sharding.make_mesh(jax.devices()[:devices])


def source(split: Split, calls: str = "", cache: str = "host", seed: int = 0, devices: int = 8) -> pipeline.Source:
    return pipeline.open_source(split, spec.parse_pipeline(calls), cache=cache, seed=seed, mesh=mesh(devices))


def train(source: pipeline.Source, start: int = 0, stop: int = 5, batch_size: int = 40, seed: int = 0) -> list[dict]:
    batches = pipeline.train_batches(source, seed=seed, batch_size=batch_size, start=start, stop=stop)
    return [jax.device_get(batch) for batch in batches]


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other) > 0
    jax.tree.map(np.testing.assert_array_equal, one, other)


# ------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize(("seed", "epoch"), GOLDEN)
def test_the_order_never_changes(seed: int, epoch: int) -> None:
    assert pipeline.permutation(seed, epoch, 10).tolist() == GOLDEN[seed, epoch]


def test_the_order_crosses_from_one_epoch_into_the_next() -> None:
    assert pipeline.batch_indices(seed=0, step=1, batch_size=7, count=10).example.tolist() == [3, 6, 7, 5, 3, 7, 8]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 1), (10, 5), (10, 3), (97, 10), (10, 25), (1, 4)])
def test_each_epoch_has_every_example_once(count: int, batch_size: int) -> None:
    epochs = 3
    steps = -(-epochs * count // batch_size)
    batches = [pipeline.batch_indices(3, step, batch_size, count).example for step in range(steps)]
    assert {batch.shape for batch in batches} == {(batch_size,)}
    stream = np.concatenate(batches)[: epochs * count].reshape(epochs, count)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(count), (epochs, 1)))
    if count > 10:
        assert len(np.unique(stream, axis=0)) == epochs


def test_the_order_depends_on_seed_and_step_alone() -> None:
    first = pipeline.batch_indices(5, 40, 16, 100).example
    for step in range(10):
        pipeline.batch_indices(6, step, 32, 100)
    pipeline.permutation.cache_clear()
    np.testing.assert_array_equal(pipeline.batch_indices(5, 40, 16, 100).example, first)
    assert not np.array_equal(pipeline.batch_indices(6, 40, 16, 100).example, first)


@pytest.mark.parametrize("repeats", [2, 3, 6])
def test_repeats_put_each_example_of_a_batch_in_it_so_often(repeats: int) -> None:
    count, size = 10, 12
    batches = [pipeline.batch_indices(3, step, size, count, repeats) for step in range(10 * repeats)]
    for batch in batches:
        np.testing.assert_array_equal(batch.example, np.tile(batch.example[: size // repeats], repeats))
    stream = np.concatenate([batch.example[: size // repeats] for batch in batches])
    np.testing.assert_array_equal(stream, np.concatenate([pipeline.permutation(3, e, count) for e in range(12)]))
    seen: dict[int, list[int]] = {}  # how often before, each time
    for example, epoch in zip(*map(np.concatenate, zip(*batches, strict=True)), strict=True):
        seen.setdefault(int(example), []).append(int(epoch))
    assert all(sorted(epochs) == list(range(12 * repeats)) for epochs in seen.values())


def test_repeats_are_cropped_each_in_its_own_way(photographs: Split) -> None:
    opened = source(photographs, "random_crop(9)", devices=1)
    batch = jax.device_get(next(pipeline.train_batches(opened, seed=0, batch_size=12, repeats=3, start=0, stop=1)))
    assert len(set(batch["example"].tolist())) == 4
    assert len(np.unique(batch["image"], axis=0)) == 12


# ----------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_what_the_split_holds_at_those_places(digits: Split) -> None:
    images, labels = digits.read(pipeline.batch_indices(0, 2, 40, 100).example)
    batch = train(source(digits), start=2, stop=3)[0]
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(batch["image"], np.stack(images))
    np.testing.assert_array_equal(batch["label"], labels)
    example, epoch = pipeline.batch_indices(0, 2, 40, 100)
    np.testing.assert_array_equal(batch["example"], example)
    np.testing.assert_array_equal(batch["epoch"], epoch)
    assert epoch.tolist() == [0] * 20 + [1] * 20  # of 100 examples, the 80th to the 119th


@pytest.mark.parametrize("calls", ["", "resize(12)|center_crop((10, 9))"])
def test_device_memory_gives_the_batches_of_the_host_bit_for_bit(digits: Split, calls: str) -> None:
    host, device = (source(digits, calls, cache) for cache in ("host", "device"))
    assert host.shape == device.shape
    jax.tree.map(
        np.testing.assert_array_equal, host.statistics(normalize.ON_DEMAND), device.statistics(normalize.ON_DEMAND)
    )
    assert_same(train(host), train(device))


@pytest.mark.parametrize(("cache", "calls"), [("host", ""), ("device", ""), ("host", "random_resized_crop(8)")])
def test_starting_at_a_step_gives_the_rest_of_starting_at_the_first(digits: Split, cache: str, calls: str) -> None:
    opened = source(digits, calls, cache)
    assert_same(train(opened, start=3), train(opened)[3:])


@pytest.mark.parametrize(("cache", "calls"), [("device", ""), ("host", "random_crop(7)")])
def test_the_global_batch_is_the_same_on_any_number_of_devices(digits: Split, cache: str, calls: str) -> None:
    one, eight = (train(source(digits, calls, cache, devices=devices)) for devices in (1, 8))
    assert_same(one, eight)


@pytest.mark.parametrize("cache", ["host", "device"])
def test_a_batch_is_divided_evenly_over_the_devices(digits: Split, cache: str) -> None:
    batch = next(pipeline.train_batches(source(digits, cache=cache), seed=0, batch_size=40, start=0, stop=1))
    for array in batch.values():
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [5] * 8


def test_what_is_random_is_a_function_of_seed_and_place_in_the_stream(photographs: Split) -> None:
    one = Split(photographs.name, "train[:1]", photographs._path)
    crops = source(one, "random_crop(9)", devices=1)
    whole = train(crops, 0, 2, batch_size=8)
    singles = train(crops, 0, 16, batch_size=1)
    together, apart = (np.concatenate([batch["image"] for batch in batches]) for batches in (whole, singles))
    np.testing.assert_array_equal(together, apart)
    assert len(np.unique(together, axis=0)) > 8  # of sixteen epochs
    other = train(source(one, "random_crop(9)", seed=1, devices=1), 0, 2, batch_size=8)
    assert not np.array_equal(other[0]["image"], whole[0]["image"])


@pytest.mark.parametrize("cache", ["host", "device"])
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_evaluation_sees_every_example_exactly_once(digits: Split, batch_size: int, devices: int, cache: str) -> None:
    batches = pipeline.eval_batches(
        source(digits, "", cache, devices=devices), batch_size=batch_size, mesh=mesh(devices)
    )
    got = [jax.device_get(batch) for batch in batches]
    assert len({batch["image"].shape for batch in got}) == 1  # compiled once
    assert len(got[0]["label"]) < batch_size + devices
    mask = np.concatenate([batch["mask"] for batch in got])
    images, labels = digits.read(np.arange(100))
    for name, want in (("image", np.stack(images)), ("label", labels)):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in got])[mask], want)


@pytest.mark.parametrize(("calls", "channels"), [("", 1), ("resize((9, 7))", 3)])
def test_statistics_are_those_of_all_pixels(calls: str, channels: int, digits: Split, photographs: Split) -> None:
    split = digits if channels == 1 else photographs
    opened = source(split, calls)
    images = pipeline.read(split, spec.parse_pipeline(calls), np.arange(len(split)), np.arange(len(split)), 0)["image"]
    pixels = images.reshape(-1, channels) / 255
    got = opened.statistics(())
    np.testing.assert_allclose(got["mean"], pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got["std"], pixels.std(axis=0), rtol=1e-12)


def test_a_large_split_is_sampled_evenly_for_its_statistics(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STATISTICS_SAMPLE", 10)
    images, _ = digits.read(np.arange(0, 100, 11))
    got = source(digits).statistics({"mean_image"})
    np.testing.assert_allclose(got["mean"], [np.mean(images) / 255], rtol=1e-12)
    np.testing.assert_allclose(got["mean_image"], np.mean(images, axis=0) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("calls", "limit", "on_device"),
    [("", 10**9, True), ("", 6399, False), ("", 6400, True), ("random_crop(7)", 10**9, False)],
)
def test_auto_keeps_what_fits_and_is_the_same_every_epoch(
    digits: Split, monkeypatch: pytest.MonkeyPatch, calls: str, limit: int, on_device: bool
) -> None:
    monkeypatch.setattr(pipeline, "AUTO_CACHE_BYTES", limit)  # a hundred images of 8 x 8 are 6,400 bytes
    reads = []
    monkeypatch.setattr(pipeline, "read", lambda *args, read=pipeline.read: reads.append(args) or read(*args))
    opened = source(digits, calls, "auto")
    opened.statistics(())  # waits for what is read in the background
    before = len(reads)
    train(opened, stop=2)
    assert (len(reads) == before) == on_device


# ------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("text", "host", "step"),
    [
        ("", [], []),
        ("resize(256)|center_crop(224)", ["resize", "center_crop"], []),
        ("flip_lr|cutout(8)", [], ["flip_lr", "cutout"]),
        ("random_resized_crop(224)|flip_lr", ["random_resized_crop"], ["flip_lr"]),
    ],
)
def test_operations_run_where_they_belong(text: str, host: list[str], step: list[str]) -> None:
    assert tuple([call.name for call in calls] for calls in pipeline.split_ops(text)) == (host, step)


@pytest.mark.parametrize("name", HOST_OPS)
def test_an_operation_is_random_if_it_draws(name: str) -> None:
    assert pipeline.is_random([spec.Call(name, (8,), {})]) == name.startswith("random_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fliplr", "unknown operation 'fliplr'; did you mean 'flip_lr'?"),
        ("flip_lr|resize(8)", "'resize' changes sizes on the host, so it must come before 'flip_lr'"),
        (
            "resize(9)|flip_lr|random_crop(8)|cutout(2)",
            "'random_crop' changes sizes on the host, so it must come before",
        ),
        ("resize", "operation 'resize': missing a required argument: 'size'"),
        ("resize(8, sise=8)", "operation 'resize' has no argument 'sise'; did you mean 'size'?"),
        ("resize('8')", "operation 'resize': size = '8': expected int | tuple[int, int]"),
        ("random_crop(8, rng=None)", "has no argument 'rng'"),
        ("flip_lr|", "is not a pipeline"),
    ],
)
def test_a_wrong_pipeline_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        pipeline.split_ops(text)


def test_the_device_does_not_keep_what_differs_in_each_epoch(digits: Split) -> None:
    with pytest.raises(InputError, match=r"config.cache = 'device' does not go with 'random_crop', which differs"):
        source(digits, "resize(9)|random_crop(8)", "device")


@pytest.mark.parametrize("cache", ["host", "device"])
def test_images_of_different_sizes_need_an_operation_that_makes_them_one(photographs: Split, cache: str) -> None:
    with pytest.raises(InputError, match=r"'?photographs'? have different sizes .*such as resize\(\(224, 224\)\)"):
        train(source(photographs, "", cache))


@pytest.mark.parametrize("calls", ["center_crop(9)", "random_crop(9)", "resize(0)"])
def test_an_operation_that_does_not_fit_the_images_is_refused(digits: Split, calls: str) -> None:
    with pytest.raises(InputError, match=r"resize it first|expected at least 1 pixel"):
        source(digits, calls)


# -------------------------------------------------------------------------------------------------------------- kept


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where pixels are kept, however fast they were read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(split_cache, "WORTH", 0.0)
    return tmp_path / "cnnjax" / "pixels"


def pixels(split: Split, calls: str = "") -> tuple[dict[str, np.ndarray], bool]:
    """The pixels of a split, and whether they were read."""
    reads = []
    rows = np.arange(len(split))

    def read() -> dict[str, np.ndarray]:
        reads.append(calls)
        return pipeline.read(split, spec.parse_pipeline(calls), rows, rows, 0)

    return split_cache.arrays(split, spec.parse_pipeline(calls), read), bool(reads)


def test_pixels_are_kept_for_the_same_split_files_and_operations(
    digits: Split, photographs: Split, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, read = pixels(digits)
    assert read
    again, read = pixels(digits)
    assert not read
    assert_same([first], [again])
    assert pixels(digits, "resize(4)")[1]
    assert pixels(build.load("digits", "train[:99]", str(digits._path.parents[1])))[1]
    assert pixels(photographs, "resize((8, 8))")[1]
    for path in photographs._path.iterdir():
        os.utime(path, (1, 1))
    assert pixels(photographs, "resize((8, 8))")[1]
    monkeypatch.setattr(split_cache, "WORTH", 60.0)
    assert [pixels(digits, "resize(5)")[1] for _ in range(2)] == [True, True]  # fast enough without


def test_damaged_pixels_are_read_anew(digits: Split, folder: pathlib.Path) -> None:
    first, _ = pixels(digits)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :]):
        path.write_bytes(damaged)
        again, read = pixels(digits)
        assert read
        assert_same([first], [again])
    assert not pixels(digits)[1]


def test_pixels_that_were_not_used_for_longest_make_room(
    digits: Split, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_cache, "MOST", 3 * 8000)  # each of these has 6,400 bytes of pixels
    calls = [f"pad(8, value={i})" for i in range(4)]
    for call in calls[:3]:
        assert pixels(digits, call)[1]
    for i, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (i, i))
    assert not pixels(digits, calls[0])[1]
    assert pixels(digits, calls[3])[1]
    assert [pixels(digits, call)[1] for call in (calls[0], calls[3], calls[2], calls[1])] == [False, False, False, True]


def test_pixels_that_cannot_be_written_are_not_kept(
    digits: Split, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_cache, "WORTH", 0.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [pixels(digits)[1] for _ in range(2)] == [True, True]
