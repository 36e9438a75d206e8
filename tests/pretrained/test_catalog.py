"""The catalog of published weights: its rows, downloads, and loading a network by name or from a file."""

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import re
import resource
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax import pretrained, spec
from cnnjax.augment import PROVIDED_ARGUMENTS, normalize
from cnnjax.cli import main
from cnnjax.data import imagenet, pipeline
from cnnjax.data.build import build
from cnnjax.data.info import DataInfo
from cnnjax.data.operations import parse_operations
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import evaluate
from cnnjax.models import count_params, create_model
from cnnjax.pretrained import catalog, convert, export
from cnnjax.pretrained.file_networks import class_names
from cnnjax.pretrained.names import LIBRARIES
from cnnjax.training import distill
from tests.parity import harness

ROWS = catalog.rows()
NET = "cifar_resnet20(depth=8)"
NAME = "akamaster:tiny"
LIKE = pretrained.FileOptions(like=NAME)


def silent(line: str) -> None:
    pass


# ------------------------------------------------------------------------------------------------------------ the rows


@pytest.mark.parametrize("name", ROWS)
def test_every_row_names_a_model_a_library_and_a_file(name: str) -> None:
    row = ROWS[name]
    model: Any = create_model(row.model, len(class_names(row.classes)))
    assert bool(row.library) != bool(row.card)
    assert row.card or convert.family(model) in LIBRARIES[row.library].families
    operations = parse_operations(row.preprocess)
    assert operations.step + operations.mixing == ()
    spec.find("normalization", spec.parse(row.normalize), normalize.NORMALIZE, **dict.fromkeys(PROVIDED_ARGUMENTS))
    assert not pipeline.required_statistics(row.preprocess, normalization=row.normalize)  # what no file of weights says
    assert re.fullmatch(r"(sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}|sha1:[0-9a-f]{40})?", row.digest)
    assert re.fullmatch(r"https?://[^{} ]+", row.url) or row.card
    assert row.path.suffix in (".pth", ".th", ".safetensors", ".h5", ".gz", ".caffemodel")
    assert row.license
    assert row.about
    assert all(value is None or 40 < value <= 100 for value in (row.top1, row.top5))
    assert (row.top1 or 0) <= (row.top5 or 100)


def test_no_two_rows_share_a_file() -> None:
    assert len({row.path for row in ROWS.values()}) == len(ROWS) > 180


MODELS = {row.model: row for row in ROWS.values()}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=[] if row.params < 1.3e6 else [pytest.mark.slow, pytest.mark.zoo])
        for model, row in MODELS.items()
    ],
)
def test_params_of_a_row_are_those_of_its_model(model: str) -> None:
    network = pretrained.load(MODELS[model].name)
    height, width, channels = network.data.shape
    assert count_params(network.model, (height, width, channels)) == MODELS[model].params


def test_torchvision_rows_match_its_own_table(shared: pathlib.Path) -> None:
    theirs = json.loads((shared / "reference" / "torchvision_weights.json").read_text())
    for key, row in theirs.items():
        name = f"torchvision:{row['model']}.{key.rpartition('_')[2].lower()}"
        if name == "torchvision:vgg16.features":  # which has no classifier
            continue
        ours = ROWS[name]
        assert (ours.url, ours.top1, ours.top5) == (row["url"], row["metrics"]["acc@1"], row["metrics"]["acc@5"])
        interpolation = row["interp"].rpartition(".")[2].lower()
        expected = f'resize({row["resize"][0]}, filter="{interpolation}")|center_crop({row["crop"][0]})'
        assert ours.preprocess == expected
        if row["model"] not in ("googlenet", "inception_v3"):  # which count their auxiliary classifiers
            assert ours.params == row["num_params"]


def test_imagenets_classes() -> None:
    names = imagenet.names()
    assert len(names) == len(set(names.values())) == 1000
    assert [*names] == sorted(names)
    assert imagenet.readable(["n01440764", "mine", "n15075141"]) == ["tench", "mine", "toilet tissue"]
    assert catalog.DATA_SETS["imagenet"].classes == tuple(names)


# ------------------------------------------------------------------------------------------------- getting their files


@pytest.fixture(scope="module")
def variables() -> Any:
    model: Any = create_model(NET, 10)
    return harness.random_variables(model, np.zeros((1, 32, 32, 3), np.float32), 0)


@pytest.fixture(scope="module")
def saved(variables: Any, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A file of the variables with akamaster's names."""
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in _flat(variables)}
    path = tmp_path_factory.mktemp("saved") / "tiny.pth"
    export.write(path, convert.export_variables(create_model(NET, 10), (32, 32, 3), flat, "akamaster"))
    return path


def _flat(tree: Any) -> list[tuple[list[str], Any]]:
    return [([key.key for key in path], leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.fixture
def row(server: Any, saved: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: Any) -> catalog.PublishedWeights:
    """A catalog of one row, whose file a local server has."""
    server.content = saved.read_bytes()
    digest = f"sha256:{hashlib.sha256(server.content).hexdigest()[:8]}"
    made = dataclasses.replace(ROWS["akamaster:resnet20"], name=NAME, model=NET, url=server.url + ".pth", digest=digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "rows", lambda: {NAME: made})
    return made


def test_a_file_is_downloaded_once_and_used_without_a_network(row: Any, server: Any, saved: pathlib.Path) -> None:
    path = catalog.fetch(row, silent)
    assert path.read_bytes() == saved.read_bytes()
    assert path == row.path
    assert catalog.fetch(dataclasses.replace(row, url="http://127.0.0.1:9/file.pth"), silent).exists()
    assert server.requests == [None]


def test_a_file_of_another_digest_is_thrown_away(row: Any, server: Any) -> None:
    server.content = b"something else"
    with pytest.raises(
        InputError, match=r"14 bytes with sha256:\w+, expected sha256:\w{8}\. Without a network"
    ) as error:
        catalog.fetch(row, silent)
    assert "\n" not in str(error.value)
    assert [path.name for path in row.path.parent.iterdir()] == ["lock"]


def test_a_cut_connection_keeps_what_came_and_goes_on(row: Any, server: Any, saved: pathlib.Path) -> None:
    server.cut = 10_000
    with pytest.raises(InputError, match=r"10,000 bytes are kept"):
        catalog.fetch(row, silent)
    assert not row.path.exists()
    server.cut = 0
    assert catalog.fetch(row, silent).read_bytes() == saved.read_bytes()
    assert server.requests == [None, "bytes=10000-"]


def test_a_full_disk_is_an_input_error(row: Any) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match=r"file\.pth\.part: File too large"):
            catalog.fetch(row, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_of_two_at_once_one_downloads(row: Any, server: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # the lock is of a file, whichever process opened it
        paths = list(pool.map(lambda _: catalog.fetch(row, silent), range(2)))
    assert paths == [row.path] * 2
    assert server.requests == [None]


def test_without_a_network_the_error_names_file_and_folder(row: Any) -> None:
    there = row.path.parent
    with pytest.raises(InputError, match=r"could not download file\.pth: http.*refused") as error:
        catalog.fetch(dataclasses.replace(row, url="http://127.0.0.1:9/file.pth"), silent)
    assert str(error.value).endswith(f"Without a network, put that file into {there}")
    row.path.write_bytes(b"a wrong one")
    with pytest.raises(InputError, match=r"file\.pth is another file: 11 bytes with sha256"):
        catalog.fetch(dataclasses.replace(row, url="http://127.0.0.1:9/file.pth"), silent)


def test_where_no_digest_was_published_the_first_counts(row: Any, server: Any) -> None:
    row, said = dataclasses.replace(row, digest=""), []
    path = catalog.fetch(row, said.append)
    assert re.search(r"no digest was published; from now on .*file\.pth must have sha256:\w{64}", said[-1])
    said.clear()
    assert catalog.fetch(row, said.append) == path
    assert said == []
    path.write_bytes(b"another")
    catalog.fetch(row, silent)
    assert path.read_bytes() == server.content  # downloaded again
    server.content = b"what they have now"
    path.unlink()
    with pytest.raises(InputError, match="18 bytes with sha256"):
        catalog.fetch(row, silent)


# ---------------------------------------------------------------------------------------------------------- using them


def restored(network: pretrained.LoadedNetwork, **options: Any) -> dict[str, np.ndarray]:
    mesh = sharding.make_mesh(jax.devices()[:2])
    found = network.load_variables(mesh, options.get("step", "last"), silent).variables
    return {"/".join(path): np.asarray(leaf) for path, leaf in _flat(found)}


def assert_same(found: dict[str, np.ndarray], variables: Any) -> None:
    expected = {"/".join(path): np.asarray(leaf) for path, leaf in _flat(variables)}
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)


def test_a_catalog_name_loads_the_network_with_its_weights(row: Any, variables: Any) -> None:
    network = pretrained.load(NAME)
    assert (network.config.model, network.config.dataset, network.config.test_split) == (NET, "cifar10", "test")
    assert network.data.shape == (32, 32, 3)
    assert network.data.classes[0] == "airplane"
    assert_same(restored(network), variables)
    with pytest.raises(InputError, match="step 'best': only a run has checkpoints to choose from"):
        restored(network, step="best")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("like", [{"model": NET}, {"like": NAME}])
def test_a_file_loads_with_like_or_model(row: Any, variables: Any, saved: pathlib.Path, tmp_path, suffix, like):
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in _flat(variables)}
    path = tmp_path / f"mine{suffix}"
    export.write(path, convert.export_variables(create_model(NET, 10), (32, 32, 3), flat, "pytorchcv"))
    network = pretrained.load(path, pretrained.FileOptions(**like))
    assert len(network.data.classes) == 10
    assert_same(restored(network), variables)


def test_a_file_may_have_our_own_names(row: Any, variables: Any, tmp_path: pathlib.Path) -> None:
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in _flat(variables)}
    export.write(
        tmp_path / "own.safetensors", export.to_state_dict(create_model(NET, 10), (32, 32, 3), flat, export.OWN)
    )
    assert_same(restored(pretrained.load(tmp_path / "own.safetensors", LIKE)), variables)
    less, more = {name: leaf for name, leaf in flat.items() if "head" not in name}, flat | {"params/extra": np.ones(3)}
    for arrays, message in (
        (less, r"2 missing\n  missing: params/head/kernel \[64, 10\], params/head/bias \[10\]$"),
        (more, "not used: params/extra"),
    ):
        export.write(tmp_path / "wrong.safetensors", arrays)
        with pytest.raises(InputError, match=message):
            pretrained.load(tmp_path / "wrong.safetensors", LIKE)


def test_a_file_may_have_other_classes(row: Any, tmp_path: pathlib.Path) -> None:
    model: Any = create_model(NET, 3)
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in _flat(_shapes_filled(model))}
    export.write(tmp_path / "mine.pth", convert.export_variables(model, (32, 32, 3), flat, "akamaster"))
    network = pretrained.load(tmp_path / "mine.pth", LIKE)
    assert network.data.classes == ("0", "1", "2")
    assert restored(network)["params/head/kernel"].shape == (64, 3)


def _shapes_filled(model: Any) -> Any:
    return harness.random_variables(model, np.zeros((1, 32, 32, 3), np.float32), 0)


WRONG = {
    "a misspelt name": ("akamaster:tinny", "", r"unknown weights 'akamaster:tinny'; did you mean 'akamaster:tiny'"),
    "nothing": ("runs/none", "", "runs/none does not exist"),
    "a file alone": (
        "FILE",
        "",
        "FILE does not name its network: give --model, as in --model=resnet18",
    ),
    "a file of another network": ("FILE", "cifar_resnet20", r"FILE: the arrays do not match the network: \d+ missing"),
    "a file of no network": ("FILE", "resnet_twenty", "unknown model 'resnet_twenty'"),
    "a file of a network without names": ("FILE", "airbench94", "has no network of the family 'airbench'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_source_is_an_input_error(row: Any, saved: pathlib.Path, name: str) -> None:
    source, model, message = WRONG[name]
    with pytest.raises(InputError, match=message.replace("FILE", re.escape(str(saved)))):
        pretrained.load(source.replace("FILE", str(saved)), pretrained.FileOptions(model=model))


@pytest.mark.parametrize("source", [NAME, "FILE"])
def test_training_starts_from_published_weights(row: Any, saved: pathlib.Path, variables: Any, source: str) -> None:
    own = _shapes_filled(create_model(NET, 10))
    own = jax.tree.map(jax.numpy.zeros_like, own)
    mesh = sharding.make_mesh(jax.devices()[:1])
    options = pretrained.FileOptions(model=NET, may_lack="head")
    network = pretrained.load(source.replace("FILE", str(saved)), options)
    fitting = pretrained.match_for_transfer(own, network, source, network.data.classes)
    begun = pretrained.apply_transfer(own, network, fitting, mesh, silent)
    assert_same({"/".join(path): np.asarray(leaf) for path, leaf in _flat(begun)}, variables)


def test_published_weights_are_a_distillation_teacher(row: Any) -> None:
    mesh, said = sharding.make_mesh(jax.devices()[:1]), []
    data = DataInfo(tuple(catalog.DATA_SETS["cifar10"].classes), (32, 32, 3), {"mean": [0.5] * 3, "std": [0.2] * 3})
    teacher = distill.load_teacher(distill.parse(f"distill('{NAME}')"), [], data, mesh, said.append)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    inputs = teacher.prepare(jax.random.key(0), images)
    logits = jax.jit(teacher.logits)(teacher.variables, inputs)
    assert logits.shape == (2, 10)
    assert said[-1] == f"the teacher is {NET} of {NAME}, step 0"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of 20 images of ten classes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(20):
        path = folder / "raw" / "test" / f"class{i % 10}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    build("photographs", str(folder / "raw"), str(folder / "data"), silent)
    return str(folder / "data")


def test_published_weights_are_evaluated(
    row: Any, saved: pathlib.Path, photographs: str, tmp_path: pathlib.Path
) -> None:
    options: Any = {
        "dataset": "photographs",
        "split": "test",
        "data_dir": photographs,
        "log": silent,
        "match_classes": "position",
    }
    result = evaluate.evaluate(tmp_path / "out", init=NAME, **options)
    assert (result["count"], result["step"], result["init"]) == (20, 0, NAME)
    assert (pathlib.Path(result["folder"]) / "metrics.json").is_file()
    assert pathlib.Path(result["folder"]).parent == tmp_path / "out" / "evaluations"
    with pytest.raises(InputError, match=re.escape(f"unknown weights '{NET}'")):
        evaluate.evaluate(tmp_path / "out", init=str(saved), like=NET, **options)


def test_the_weights_command_lists_rows_and_shows_one(capsys: Any) -> None:
    assert main(["weights", "torchvision:resnet50.*"]) == 0
    out = capsys.readouterr().out
    assert "Published weights: 2" in out
    assert "80.86 %" in out
    assert main(["weights", "torchvision:resnet50.v1"]) == 0
    out = capsys.readouterr().out
    assert "resnet50-0676ba61.pth" in out
    assert "not downloaded yet; will be" in out
    assert main(["weights", "resnett50"]) == 1
    assert "unknown weights 'resnett50'" in capsys.readouterr().err
