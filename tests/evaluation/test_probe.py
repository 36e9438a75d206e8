"""Probes: features are the input of the classifier, and both classifiers match their definitions."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, cli, pretrained
from cnnjax.data.build import load
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.evaluation import probe, scoring
from tests.evaluation.networks import mesh_of, random_network

DATA = DataInfo(tuple("0123456789"), (8, 8, 1), {"mean": [0.3], "std": [0.4]})
# A network for 8x8 images, and the features that its classifier is given: of another field of it, or a width.
NETWORKS = {
    "one fully connected layer": ("cifar_resnet20", "stage3", 64),
    "hidden layers": ("mlp(features=(20, 12))", "hidden2", 12),
    "without hidden layers": ("perceptron", "", 64),
    "maps of scores": ("nin_cifar10", "", 192),
}


def network(model: str, **changes: Any) -> pretrained.LoadedNetwork:
    return random_network(model, DATA, **{"dataset": "digits", "eval_batch_size": 50, **changes})


def extracted(trained: pretrained.LoadedNetwork, split: Any, layer: str = "", devices: int = 1) -> np.ndarray:
    mesh = mesh_of(devices)
    return probe.extract_features(trained, trained.load_variables(mesh, "last", print).variables, split, layer, mesh)[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_the_input_of_the_classifier(kind: str, digits_dir: str) -> None:
    model, last, width = NETWORKS[kind]
    split, trained = load("digits", "test[:30]", digits_dir), network(model)
    found = extracted(trained, split)
    assert found.shape == (30, width)
    if last:
        np.testing.assert_allclose(found, extracted(trained, split, last, devices=2), atol=1e-5)
    if model == "perceptron":
        pixels = split.read(np.arange(30))[0]
        prepare = augment.build([], "mean_std", DATA.statistics, (8, 8, 1))
        seen = prepare(jax.random.key(0), jnp.asarray(np.stack(pixels)))
        np.testing.assert_allclose(found, np.asarray(seen).reshape(30, 64), atol=1e-6)


def test_features_are_computed_once_and_anew_for_other_weights(
    digits_dir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the tests' own may be kept from an earlier run
    monkeypatch.setattr("cnnjax.data.split_cache.MIN_SECONDS_TO_CACHE", 0.0)
    passes, collect = [], scoring.collect
    monkeypatch.setattr(scoring, "collect", lambda *args: passes.append(1) or collect(*args))
    split, trained = load("digits", "test[:20]", digits_dir), network("mlp(features=(5,))")
    first = extracted(trained, split)
    np.testing.assert_array_equal(extracted(trained, split), first)
    assert len(passes) == 1
    doubled = jax.tree.map(lambda x: 2 * x, trained.load_variables(mesh_of(), "last", print).variables)
    other = trained.replace(load_variables=lambda *args: pretrained.Restored(0, doubled))
    assert not np.allclose(extracted(other, split), first)
    trained.config.normalize = "symmetric"
    assert not np.allclose(extracted(trained, split), first)
    assert len(passes) == 3


def test_the_nearest_neighbor_decides_at_a_low_temperature() -> None:
    rng = np.random.default_rng(0)
    train, labels, test = rng.normal(size=(40, 6)), rng.choice([0, 2, 3], 40), rng.normal(size=(7, 6))
    found = probe.nearest_neighbors(train, labels, test, num_classes=5, k=4, temperature=1e-6)
    cosines = test @ train.T / np.linalg.norm(train, axis=1)
    np.testing.assert_allclose(found, np.eye(5)[labels[cosines.argmax(axis=1)]], atol=1e-6)


def test_neighbors_vote_by_their_cosines() -> None:
    rng = np.random.default_rng(0)
    train, labels, test = rng.normal(size=(40, 6)), rng.choice([0, 2, 3], 40), rng.normal(size=(7, 6))
    found = probe.nearest_neighbors(train, labels, test, num_classes=5, k=4, temperature=0.2)
    for row, x in zip(found, test, strict=True):
        cosines = train @ x / np.linalg.norm(train, axis=1) / np.linalg.norm(x)
        votes = np.zeros(5)
        for i in np.argsort(-cosines)[:4]:
            votes[labels[i]] += np.exp(cosines[i] / 0.2)
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-5)


def test_a_linear_classifier_finds_what_is_linear_and_lets_noise_be() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, 300)
    clear = 100 * np.eye(5)[labels] + rng.normal(size=(300, 5)) + 1000  # scales do not matter
    found, _ = probe.linear_classifier(clear[:200], labels[:200], clear[200:], num_classes=5)
    assert (found.argmax(axis=1) == labels[200:]).all()
    assert (found[:, [0, 4]] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    noise = rng.normal(size=(300, 100))
    noise[:, 0] += labels
    _, c = probe.linear_classifier(noise[:200], labels[:200], noise[200:], num_classes=5)
    assert c < 0.1  # a weak signal among many features takes strong decay


# The arguments of a probe, and what is said.
WRONG = {
    "layer": ({"layer": "hiden1"}, "unknown layer of 'mlp(features=(5,))': 'hiden1'; did you mean 'hidden1'?"),
    "k": ({"k": 41}, "k = 41: expected at least 1, and no more than the 40 training images"),
    "temperature": ({"temperature": 0.0}, "temperature = 0.0: expected more than 0"),
    "few": ({"train_split": "train[:1]", "k": 1}, "a linear classifier needs at least two classes"),
    "split": ({"split": "tets"}, "did you mean 'test'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors(case: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    changes, said = WRONG[case]
    options: dict[str, Any] = {"train_split": "train[:40]", "split": "test[:9]", "k": 5, "data_dir": digits_dir}
    with pytest.raises(InputError) as error:
        probe.probe(network("mlp(features=(5,))"), tmp_path, **options | changes, mesh=mesh_of(), log=lambda line: None)
    assert said in str(error.value)


def test_both_classifiers_write_the_files_of_an_evaluation(digits_dir: str, tmp_path: pathlib.Path) -> None:
    trained = network("mlp(features=(60,))")
    splits = {"train_split": "train[:300]", "split": "test[:100]"}
    options: dict[str, Any] = {"mesh": mesh_of(), "log": lambda line: None, "data_dir": digits_dir}
    found = probe.probe(trained, tmp_path, **splits, description={"init": "somebody:lenet.v1"}, **options)
    assert [one["accuracy"] > 0.7 for one in found] == [True, True]  # handwriting is nearly linear
    for one in found:
        folder = pathlib.Path(one["folder"])
        stored = json.loads((folder / "metrics.json").read_text())
        assert stored["accuracy"] == one["accuracy"]
        assert (stored["init"], stored["train_split"], stored["count"]) == ("somebody:lenet.v1", "train[:300]", 100)
        assert (folder / "per_class.csv").exists()
    assert (found[0]["k"], found[0]["temperature"]) == (20, 0.07)
    assert found[1]["C"] in probe.INVERSE_REGULARIZATION


def test_the_command_shows_a_table(digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--config.val_split=", "--config.model=mlp(features=(8,))", "--config.duration=4 steps"]
    assert cli.main(["train", "--config=configs/digits_lenet5.py", *short, f"--workdir={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    splits = ["--train_split=train[:200]", "--split=test[:50]", "--k=3", "--layer=hidden1"]
    assert cli.main(["probe", f"--workdir={tmp_path / 'run'}", *splits]) == 0
    shown = capsys.readouterr().out
    assert "8 features of 200 and 50 images" in shown
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("run/evaluations/*probe*/metrics.json"))]
    assert all(f"{one['accuracy']:.2%}" in shown for one in results)
    assert [one["probe"] for one in results] == ["knn", "linear"]
