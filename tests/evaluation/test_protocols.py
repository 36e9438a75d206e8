"""Test protocols: each equals its paper's words, written out in loops, and counts every image once."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax import spec
from cnnjax.config import Config
from cnnjax.data import images, pipeline, transforms
from cnnjax.data.build import build, load
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import evaluate, protocols, report, scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.models import create_model
from cnnjax.runs import checkpoint
from cnnjax.state import TrainState

SIZES = ((36, 40), (40, 36), (36, 36), (44, 36), (36, 40), (36, 36), (36, 40), (36, 40), (40, 36), (72, 80), (36, 40))
GLOBAL_POOLING = 'lenet5(head="gap")'  # for images of any size from 28x28 on
SLIDING = 'lenet5(padding=0, activation="tanh")'  # fully connected layers for 32x32 images, no padding
MEANS, STDS = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NORMALIZE = f"constants(means={MEANS}, stds={STDS})"
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of data sets with eleven images of five sizes, in three classes."""
    root, rng = tmp_path_factory.mktemp("ragged"), np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        path = root / "source" / "test" / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(pixels))
    build("ragged", str(root / "source"), str(root), log=lambda line: None)
    return str(root)


def data_info(side: int, classes: Sequence[str] = CLASSES) -> DataInfo:
    """Describes training images of `side` x `side` pixels."""
    return DataInfo(tuple(classes), (side, side, 3), {"mean": MEANS, "std": STDS})


def config_with(**changes: Any) -> Config:
    return Config(**{"dataset": "ragged", "normalize": NORMALIZE, "eval_batch_size": 64, "cache": "host"} | changes)


def variables_of(model: nn.Module, side: int) -> dict[str, Any]:
    return dict(model.init(jax.random.key(3, impl="rbg"), jnp.zeros((1, side, side, 3)), train=False))


def scores_of(config: Config, side: int, folder: str, devices: int = 1, model: Any = None) -> tuple[Any, Any]:
    """Returns the scores and labels of a network made for images of that side."""
    mesh, examples = sharding.make_mesh(jax.devices()[:devices]), load("ragged", "test", folder)
    model, recipe = model or create_model(config.model, 3), parse_eval_recipe(config)
    variables = variables_of(model, side)
    results = [
        scoring.collect(
            scoring.make_scores(recipe, data_info(side), examples, model, mesh, views), variables, examples, mesh
        )
        for views in recipe.protocol.passes
    ]
    scores = np.stack([result.scores for result in results], axis=1)
    return protocols.average(scores, config.average), results[0].labels


# ------------------------------------------------------------------- the definitions: of one image, lists of its views


def window(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return np.array([[image[top + row, left + column] for column in range(size)] for row in range(size)])


def mirrored(views: list[np.ndarray]) -> list[np.ndarray]:
    return views + [np.array([row[::-1] for row in view]) for view in views]


def five(image: np.ndarray, size: int) -> list[np.ndarray]:
    down, right = image.shape[0] - size, image.shape[1] - size
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return [window(image, top, left, size) for top, left in places]


def szegedy(image: np.ndarray, size: int) -> list[np.ndarray]:
    views = []
    for side in (size * 8 // 7, size * 9 // 7, size * 10 // 7, size * 11 // 7):
        scaled = transforms.resize(image, side)
        height, width = scaled.shape[:2]
        for part in range(3):
            square = window(scaled, (height - side) * part // 2, (width - side) * part // 2, side)
            views += [*five(square, size), transforms.resize(square, (size, size))]
    return mirrored(views)


def moved(image: np.ndarray, by: int) -> np.ndarray:
    """Moves the image down and right; the pixels beyond its border are mirrored."""
    rows, columns = ([abs(i) if i < n else 2 * (n - 1) - i for i in range(-by, n - by)] for n in image.shape[:2])
    return np.array([[image[row, column] for column in columns] for row in rows])


# Protocol: the model, the side of its images, the operations before it, and the views of an image.
SEEN: dict[str, tuple[str, int, str, Callable[[np.ndarray], list[np.ndarray]]]] = {
    "single": ("mlp(features=(8,))", 28, "resize((28, 28))", lambda image: [image]),
    "flip": ("mlp(features=(8,))", 28, "resize((28, 28))", lambda image: mirrored([image])),
    "six_view(2)": ("mlp(features=(8,))", 28, "resize((28, 28))",  # the image counts twice
                    lambda image: mirrored([image, image, moved(image, 2), moved(image, -2)])),
    "center(27)": ("mlp(features=(8,))", 27, "", lambda image: five(image, 27)[4:]),
    "five_crop(28)": ("mlp(features=(8,))", 28, "resize(32)", lambda image: five(image, 28)),
    "ten_crop(27)": ("mlp(features=(8,))", 27, "resize((32, 40))", lambda image: mirrored(five(image, 27))),
    "crop144(14)": ("mlp(features=(8,))", 14, "", lambda image: szegedy(image, 14)),
    "resize(30)": (GLOBAL_POOLING, 28, "", lambda image: [transforms.resize(image, 30)]),
    "dense": (GLOBAL_POOLING, 28, "", lambda image: mirrored([image])),
    "dense(flip=False)": (SLIDING, 32, "", lambda image: [image]),
    "dense(36)": (SLIDING, 32, "", lambda image: mirrored([transforms.resize(image, 36)])),
    "multiscale(32, 40)": (SLIDING, 32, "", lambda image: [view for side in (32, 40)
                                                          for view in mirrored([transforms.resize(image, side)])]),
}  # fmt: skip


@functools.cache
def expected_logits(protocol: str, folder: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the logits [views, 3] of each image, one view after the other, and the labels of all images."""
    text, side, preprocess, views = SEEN[protocol]
    model = create_model(text, 3)
    net = jax.jit(functools.partial(model.apply, train=False))
    apply = functools.partial(net, variables_of(model, side))

    def logits(view: np.ndarray) -> np.ndarray:
        view = (view / 255 - MEANS) / STDS
        if text != SLIDING:
            return np.asarray(apply(view[None]))[0]
        # The network has a stride of 4 pixels: it slides over the image, window by window, and the scores are averaged.
        height, width = view.shape[:2]
        places = [(top, left) for top in range(0, height - 31, 4) for left in range(0, width - 31, 4)]
        return np.mean([np.asarray(apply(window(view, *place, 32)[None]))[0] for place in places], axis=0)

    rows = []
    pixels, labels = load("ragged", "test", folder).read(np.arange(len(SIZES)))
    for image in pixels:
        for call in spec.parse_pipeline(preprocess):
            image = spec.find("operation", call, transforms.HOST_OPS, image=image)()
        rows.append(np.array([logits(view) for view in views(image)]))
    return rows, labels


def expected(protocol: str, average: str, folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores [N, 3] and labels of all images."""
    rows, labels = expected_logits(protocol, folder)
    if average == "probabilities" and len(rows[0]) > 1:
        softmax = [np.exp(row) / np.exp(row).sum(axis=1, keepdims=True) for row in rows]
        return np.array([np.log(row.mean(axis=0)) for row in softmax]), labels
    return np.array([row.mean(axis=0) for row in rows]), labels


def test_every_protocol_is_here() -> None:
    assert {spec.parse(text).name for text in SEEN} == set(protocols.PROTOCOLS)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("protocol", SEEN)
def test_scores_match_the_protocol_written_out(protocol: str, average: str, ragged: str) -> None:
    text, side, preprocess, _ = SEEN[protocol]
    config = config_with(model=text, protocol=protocol, preprocess=preprocess, average=average)
    got, labels = scores_of(config, side, ragged)
    want, right = expected(protocol, average, ragged)
    assert np.array_equal(labels, right)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("protocol", ["six_view(2)", "ten_crop(27)", "crop144(14)", "dense(36)"])
def test_the_batch_and_the_devices_change_nothing(protocol: str, ragged: str) -> None:
    text, side, preprocess, _ = SEEN[protocol]
    first, right = scores_of(config_with(model=text, protocol=protocol, preprocess=preprocess), side, ragged)
    for devices, batch in ((1, 5), (8, 30)):
        config = config_with(model=text, protocol=protocol, preprocess=preprocess, eval_batch_size=batch)
        got, labels = scores_of(config, side, ragged, devices)
        assert np.array_equal(labels, right)
        np.testing.assert_allclose(got, first, atol=1e-5)


VIEWS = {
    "single": 1,
    "flip": 2,
    "six_view": 6,
    "center(20)": 1,
    "five_crop(20)": 5,
    "ten_crop(20)": 10,
    "crop144": 144,
    "resize(20)": 1,
    "dense": 2,
    "dense(flip=False)": 1,
    "multiscale(20, 30, 40)": 6,
    "multiscale(20, 30, flip=False)": 2,
}


@pytest.mark.parametrize("text", VIEWS)
@pytest.mark.parametrize("shape", [(30, 40, 3), (40, 30, 1), (32, 32, 3)])
def test_number_of_views(text: str, shape: tuple[int, ...]) -> None:
    protocol, count = protocols.build(text), 0
    for views in protocol.passes:
        ((made, _),) = pipeline.group_by_shape(np.array([shape]), views).items()
        count += math.prod(made[:-3]) * (2 if protocol.flip else 1)
    assert count == VIEWS[text]


@pytest.mark.parametrize(("protocol", "batch", "most"), [("ten_crop(20)", 12, 10), ("ten_crop(20)", 25, 20),
                                                         ("crop144(14)", 20, 18), ("crop144(14)", 400, 288),
                                                         ("crop144(14)", 1, 2)])  # fmt: skip
def test_a_device_call_has_at_most_eval_batch_size_views(protocol: str, batch: int, most: int, ragged: str) -> None:
    counts = []

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            counts.append(len(x))
            return nn.Dense(3)(x.mean(axis=(1, 2)))

    scores_of(config_with(protocol=protocol, eval_batch_size=batch), 20, ragged, model=Net())
    assert max(counts) == most


@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("devices", [1, 8])
def test_each_image_is_in_one_batch_once(batch: int, devices: int, ragged: str) -> None:
    mesh, split = sharding.make_mesh(jax.devices()[:devices]), load("ragged", "test", ragged)
    calls = spec.parse_pipeline("resize(36)")
    sizes = pipeline.group_by_shape(pipeline.image_shapes(split), calls)
    assert {shape: len(rows) for shape, rows in sizes.items()} == {
        (36, 40, 3): 6, (40, 36, 3): 2, (36, 36, 3): 2, (44, 36, 3): 1,
    }  # fmt: skip
    source = pipeline.open_source(split, calls, cache="host", seed=0, mesh=mesh)
    seen, shapes = [], set()
    for part in pipeline.eval_batches(source, batch_size=batch, mesh=mesh, groups=sizes.values()):
        seen += np.asarray(part["example"])[np.asarray(part["mask"])].tolist()
        shapes.add(part["image"].shape)
    assert sorted(seen) == list(range(len(SIZES)))
    assert len({shape[1:] for shape in shapes}) == len(shapes) == 4  # a program for each size, not more


def test_probabilities_too_small_for_a_float_have_logarithms() -> None:
    each = np.array([[[0.0, 300.0], [0.0, 400.0]]], np.float32)
    assert np.allclose(protocols.average(each, "probabilities"), [[-300 - np.log(2), 0]])
    assert np.allclose(protocols.average(each, "logits"), [[0, 350]])
    assert np.array_equal(protocols.average(each[:, :1], "probabilities"), each[:, 0])


# ------------------------------------------------------------------------------------------------- evaluating the runs


def make_run(folder: pathlib.Path, config: Config, side: int, seed: int, classes: Sequence[str]) -> pathlib.Path:
    """The folder of a run whose network is as it was initialised."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (folder / "data.json").write_text(json.dumps(data_info(side, classes).to_dict()))
    model = create_model(config.model, 3)
    params = model.init(jax.random.key(seed, impl="rbg"), jnp.zeros((1, side, side, 3)), train=False)["params"]
    with checkpoint.Saver(folder, 1) as saver:
        saver.save(TrainState(jnp.asarray(7), params, {}, {}, {}), None)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folders of runs: 'a' and 'b' of different networks and images, 'c' of other classes."""
    root = tmp_path_factory.mktemp("runs")
    a = config_with(model="mlp(features=(8,))", preprocess="resize(36)|center_crop(32)")
    b = config_with(
        model=SLIDING, preprocess="resize((32, 32))", normalize="symmetric", protocol="flip", average="logits"
    )
    make_run(root / "a", a, 32, 0, CLASSES)
    make_run(root / "b", b, 32, 1, CLASSES)
    make_run(root / "c", b, 32, 1, ["ant", "dog", "cat"])
    return root


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is reported from now on, as it is given to the report."""
    kept: list[dict[str, Any]] = []
    write = report.write

    def keep(scores: np.ndarray, label: np.ndarray, means: dict, workdir: pathlib.Path, of: dict, *rest: Any) -> Any:
        kept.append({"scores": scores, "label": label, **means, "of": of, "workdir": workdir})
        return write(scores, label, means, workdir, of, *rest)

    monkeypatch.setattr(report, "write", keep)
    return kept


def test_an_ensemble_averages_the_scores_of_its_runs(
    runs: pathlib.Path, ragged: str, written: list[dict[str, Any]]
) -> None:
    for folder in ("a", "b"):
        evaluate.evaluate(runs / folder, data_dir=ragged)
    a, b = (one["scores"] for one in written)
    both = evaluate.evaluate(runs / "a", ensemble=[str(runs / "a"), runs / "b"], data_dir=ragged)
    probabilities = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (a, b)]
    mean = np.log(sum(probabilities) / 2)
    np.testing.assert_allclose(written[2]["scores"], mean, atol=1e-5)
    loss = -mean[np.arange(len(SIZES)), written[0]["label"]].mean()
    assert (written[2]["loss"], both["count"]) == (pytest.approx(loss, rel=1e-5), len(SIZES))
    assert written[2]["workdir"] == runs / "a"
    evaluate.evaluate(runs / "b", ensemble=[runs / "a"], average="logits", data_dir=ragged)
    np.testing.assert_allclose(written[3]["scores"], (a + b) / 2, atol=1e-5)


def test_no_evaluation_overwrites_another(runs: pathlib.Path, ragged: str) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"preprocess": "resize((32, 32))"},
        {"preprocess": "resize((32, 32))", "protocol": "flip"},
        {"preprocess": "resize((32, 32))", "protocol": "flip", "average": "logits"},
        {"preprocess": "resize(36)", "protocol": "ten_crop(32)"},
        {"ensemble": [runs / "b"]},
        {"match_classes": "name"},
        {"match_classes": "position"},
    ]
    folders = [evaluate.evaluate(runs / "a", data_dir=ragged, **one)["folder"] for one in asked]
    assert len(set(folders)) == len(asked)
    assert pathlib.Path(folders[4]).name == "ragged-test-step7-preprocess=resize_36_-protocol=ten_crop_32_"
    assert evaluate.evaluate(runs / "a", protocol="single", data_dir=ragged)["folder"] == folders[0]  # as its config


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("a", {"protocol": "tencrop(32)"}, "unknown protocol 'tencrop'; did you mean 'ten_crop'"),
        ("a", {"protocol": "ten_crop"}, r"missing a required argument: 'size'; expected ten_crop\(size: int of"),
        ("a", {"protocol": "ten_crop(2.5)"}, "size = 2.5: expected int"),
        ("a", {"protocol": "center(0)"}, "size = 0: expected int of 1 to 65,535"),
        ("a", {"protocol": "multiscale(32, 'x')"}, "sizes = 'x': expected int"),
        ("a", {"protocol": "multiscale"}, r"as in multiscale\(256, 384, 512\)"),
        ("a", {"protocol": "dense(32, flp=True)"}, "no argument 'flp'; did you mean 'flip'"),
        ("a", {"average": "mean"}, "config.average = 'mean'; valid: logits, probabilities"),
        (
            "a",
            {"protocol": "ten_crop(32)"},
            r"already preprocessed by the run's 'resize\(36\)\|center_crop\(32\)': .*--preprocess='resize\(36\)'",
        ),
        ("a", {"protocol": "crop144"}, "perhaps --preprocess=''"),
        ("b", {"protocol": "ten_crop(33)"}, r"crops of 33x33 need a larger image than 32x32: .*'resize\(38\)'"),
        ("b", {"protocol": "five_crop(32)"}, "crops of 32x32 need a larger image than 32x32"),
        ("a", {"protocol": "dense", "preprocess": ""}, "unknown head 'conv'"),
        ("a", {"protocol": "resize(32)", "preprocess": ""}, r"does not take images of \(39, 32, 3\): .*hidden1"),
        ("b", {"protocol": "dense(20)", "preprocess": ""}, r"does not take images of \(20, 20, 3\): "),
        ("a", {"ensemble": ["c"]}, r"a and .*c cannot form an ensemble: their classes differ \('bee' and 'dog'\)"),
    ],
)
def test_errors_are_one_line(
    folder: str, options: dict[str, Any], message: str, runs: pathlib.Path, ragged: str
) -> None:
    options = options | {"ensemble": [runs / name for name in options.get("ensemble", ())]}
    with pytest.raises(InputError, match=message) as caught:
        evaluate.evaluate(runs / folder, data_dir=ragged, **options)
    assert "\n" not in str(caught.value)


def test_fully_connected_layers_of_one_size_have_no_dense_form(ragged: str) -> None:
    config = config_with(model='cifar_resnet20(depth=8, head="fc")', protocol="dense")
    with pytest.raises(InputError, match="has no dense form"):
        scores_of(config, 32, ragged)


def test_training_scores_by_any_protocol_of_one_size(ragged: str) -> None:
    mesh = sharding.make_mesh(jax.devices()[:1])
    data, examples = data_info(27), load("ragged", "test", ragged)
    model = create_model("mlp(features=(8,))", 3)
    for cache in ("host", "device"):
        config = config_with(
            model="mlp(features=(8,))", protocol="ten_crop(27)", preprocess="resize((32, 40))", cache=cache
        )
        sums = scoring.make_scorer(parse_eval_recipe(config), data, examples, model, mesh)(variables_of(model, 27))
        want, labels = expected("ten_crop(27)", "probabilities", ragged)
        assert (sums["count"], sums["accuracy"]) == (len(SIZES), (want.argmax(axis=1) == labels).sum())
        assert float(sums["loss"]) == pytest.approx(-want[np.arange(len(SIZES)), labels].sum(), rel=1e-5)
    with pytest.raises(InputError, match="in several sizes, which training does not: give it to `evaluate`"):
        scoring.make_scorer(parse_eval_recipe(config_with(protocol="multiscale(32, 36)")), data, examples, model, mesh)
    with pytest.raises(InputError, match="did you mean 'ten_crop'"):
        parse_eval_recipe(config_with(protocol="tencrop(3)"))
