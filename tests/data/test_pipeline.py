"""Batches: their order is a function of (seed, step), every example counts once, wherever the images live."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from cnnjax import spec
from cnnjax.augment import normalize
from cnnjax.data import pipeline
from cnnjax.data.store import Split
from cnnjax.distributed import sharding
from cnnjax.errors import InputError


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


# ------------------------------------------------------------------------------------------------------------- batches


def test_repeats_are_cropped_each_in_its_own_way(photographs: Split) -> None:
    opened = source(photographs, "random_crop(9)", devices=1)
    batch = jax.device_get(next(pipeline.train_batches(opened, seed=0, batch_size=12, repeats=3, start=0, stop=1)))
    assert len(set(batch["example"].tolist())) == 4
    assert len(np.unique(batch["image"], axis=0)) == 12


def test_a_batch_is_what_the_split_holds_at_those_places(digits: Split) -> None:
    images, labels = digits.read(pipeline.batch_indices(0, 2, 40, 100).example)
    batch = train(source(digits), start=2, stop=3)[0]
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(batch["image"], np.stack(images))
    np.testing.assert_array_equal(batch["label"], labels)
    indices = pipeline.batch_indices(0, 2, 40, 100)
    np.testing.assert_array_equal(batch["example"], indices.example)
    np.testing.assert_array_equal(batch["epoch"], indices.epoch)
    assert indices.epoch.tolist() == [0] * 20 + [1] * 20  # of 100 examples, the 80th to the 119th


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


def test_the_device_does_not_keep_what_differs_in_each_epoch(digits: Split) -> None:
    with pytest.raises(
        InputError, match=r"config.cache = 'device' cannot keep the results of 'random_crop', which is random"
    ):
        source(digits, "resize(9)|random_crop(8)", "device")


@pytest.mark.parametrize("cache", ["host", "device"])
def test_images_of_different_sizes_need_an_operation_that_makes_them_one(photographs: Split, cache: str) -> None:
    with pytest.raises(InputError, match=r"'?photographs'? have different sizes .*such as resize\(\(224, 224\)\)"):
        train(source(photographs, "", cache))


@pytest.mark.parametrize("calls", ["center_crop(9)", "random_crop(9)", "resize(0)"])
def test_an_operation_that_does_not_fit_the_images_is_refused(digits: Split, calls: str) -> None:
    with pytest.raises(InputError, match=r"resize it first|expected int of 1 to"):
        source(digits, calls)
