"""Robustness: errors on corrupted images and agreement under shifts, against loops that are written out."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, cli, spec
from cnnjax.config import Config
from cnnjax.data import imagenet, pipeline
from cnnjax.data.build import load
from cnnjax.data.corruptions import corrupt
from cnnjax.data.info import DataInfo
from cnnjax.data.transforms import move
from cnnjax.errors import InputError
from cnnjax.evaluation import card, robustness
from cnnjax.evaluation.evaluate import changed_settings, choose_split
from cnnjax.evaluation.robustness import ALEXNET, CorruptionErrors, VariantScorer
from cnnjax.evaluation.robustness_report import evaluate_robustness
from cnnjax.pretrained import FileOptions, Restored
from tests.evaluation.networks import mesh_of, random_network

DATA = DataInfo(tuple("0123456789"), (8, 8, 1), {"mean": [0.3], "std": [0.4]})


def network(**changes: Any) -> Any:
    return random_network("perceptron", DATA, **{"dataset": "digits", "test_split": "test[:30]", **changes})


def predictions(net: Any, images: Sequence[np.ndarray]) -> np.ndarray:
    """Classes by the network alone, without our evaluation."""
    prepare = augment.build([], "mean_std", DATA.statistics, (8, 8, 1))
    variables = net.load_variables(mesh_of(), "last", print).variables
    logits = net.model.apply(variables, prepare(jax.random.key(0), jnp.asarray(np.stack(images))), train=False)
    return np.asarray(logits).argmax(axis=1)


def test_errors_equal_a_loop_over_images_whatever_the_batches(digits_dir: str) -> None:
    split = load("digits", "test[:30]", digits_dir)
    images, labels = split.read(np.arange(30))
    names, severities = ("gaussian_noise", "snow", "contrast"), (2, 5)
    wanted = np.zeros((3, 2))
    for i, name in enumerate(names):
        for j, severity in enumerate(severities):
            rngs = [np.random.Generator(np.random.Philox(key=np.array([0, n], np.uint64))) for n in range(30)]
            changed = [corrupt(image, rng, name, severity) for image, rng in zip(images, rngs, strict=True)]
            wanted[i, j] = np.mean(predictions(network(), changed) != labels)
    for batch_size, devices in ((7, 1), (50, 2)):
        net = network(eval_batch_size=batch_size, seed=batch_size)  # the run's seed does not count
        scorer = VariantScorer(net, split, mesh=mesh_of(devices))
        lines: list[str] = []
        found = robustness.corruption_errors(scorer, np.arange(10), names, severities, lines.append)
        np.testing.assert_allclose(found.errors, wanted)
        assert found.clean == np.mean(predictions(network(), images) != labels)
        assert len(lines) == 3


def test_a_network_whose_scores_are_not_numbers_is_always_wrong(digits_dir: str) -> None:
    variables = network().load_variables(mesh_of(), "last", print).variables
    variables = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), variables)
    broken = network().replace(load_variables=lambda *_: Restored(0, variables))
    split = load("digits", "test[:30]", digits_dir)
    found = robustness.corruption_errors(VariantScorer(broken, split), np.arange(10), ("contrast",), (1,), print)
    assert (found.clean, found.errors.tolist()) == (1, [[1]])
    assert card.count_correct(broken, split, "single") == 0


def test_each_image_has_its_random_numbers_in_groups_too(digits_dir: str) -> None:
    split, calls = load("digits", "test[:20]", digits_dir), [spec.Call("corrupt", ("gaussian_noise", 5), {})]
    source, found = pipeline.open_source(split, calls, cache="host", seed=0, mesh=mesh_of()), []
    for groups, batch_size in ((None, 20), ([np.arange(0, 20, 2), np.arange(1, 20, 2)], 3)):
        images = np.zeros((20, 8, 8, 1), np.uint8)
        for batch in pipeline.eval_batches(source, batch_size=batch_size, mesh=mesh_of(), groups=groups):
            images[np.asarray(batch["example"])] = np.asarray(batch["image"])
        found.append(images)
    np.testing.assert_array_equal(*found)


class FakeScorer:
    """Predicts class 1 for every image, but 0 for image `n` when the images are moved by n pixels or more."""

    def __init__(self, host_ops: str = "") -> None:
        self.host_ops = tuple(spec.parse_pipeline(host_ops))
        self.labels = np.ones(5, int)
        self.seen: list[str] = []

    def predict(self, host_ops: Sequence[spec.Call]) -> np.ndarray:
        self.seen.append("|".join(map(spec.render, host_ops)))
        amounts = [max(map(abs, call.args)) for call in host_ops if call.name == "move"]
        return (np.arange(5) > max(amounts, default=-1)).astype(int)


def test_consistency_is_over_all_pairs_of_shifts() -> None:
    scorer: Any = FakeScorer()
    found = robustness.shift_consistency(scorer, np.arange(10), 2, lambda line: None)
    np.testing.assert_allclose(found.accuracy, [1, 0.6, 0.4])
    np.testing.assert_allclose(found.agreement, [1, 0.6, 0.4])
    table = np.array([[1] * 5, *[[0, 0, 1, 1, 1]] * 4, *[[0, 0, 0, 1, 1]] * 4])
    equal = [np.mean(table[i] == table[j]) for i in range(9) for j in range(9) if i < j]
    assert found.consistency == pytest.approx(np.mean(equal))
    with pytest.raises(InputError, match="shift = 0: expected 1 to 64 pixels"):
        robustness.shift_consistency(scorer, np.arange(10), 0)


def test_a_crop_moves_rather_than_the_image_in_it() -> None:
    scorer: Any = FakeScorer("resize(16)|center_crop(8)")
    robustness.shift_consistency(scorer, np.arange(10), 1, lambda line: None)
    assert scorer.seen[1] == "resize(16)|move(1, 0)|center_crop(8)"
    scorer = FakeScorer("resize(16)")
    robustness.shift_consistency(scorer, np.arange(10), 1, lambda line: None)
    assert scorer.seen[1:] == [f"resize(16)|move({shift})" for shift in ("1, 0", "-1, 0", "0, 1", "0, -1")]


def some_errors(**changes: Any) -> CorruptionErrors:
    values = {"names": ("fog", "spatter"), "severities": (1, 2, 3, 4, 5), "clean": 0.1, "count": 10}
    errors = np.array([[0.2, 0.3, 0.4, 0.5, 0.6], [1, 1, 1, 1, 1]])
    return CorruptionErrors(**{**values, "errors": errors, **changes})


def test_means_leave_the_extra_corruptions_out() -> None:
    assert some_errors().mean == pytest.approx(0.4)
    assert some_errors(names=("speckle_noise", "spatter")).mean == pytest.approx(0.7)


def test_errors_relative_to_alexnet_and_to_another_network(tmp_path: pathlib.Path) -> None:
    only_fog = some_errors(names=("fog",), errors=some_errors().errors[:1])
    relative = robustness.relative_to(only_fog, "alexnet")
    assert relative.mce == pytest.approx(0.4 / ALEXNET["fog"])
    assert relative.relative_mce == pytest.approx(0.3 / (ALEXNET["fog"] - 0.435))
    rows = [("none", "", 0, 0.2)] + [("fog", "weather", severity, 0.8) for severity in range(1, 6)]
    file = tmp_path / "corruptions.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as out:  # as Excel saves it
        csv.writer(out).writerows([("corruption", "group", "severity", "error"), *rows])
    for reference in (file, tmp_path):
        relative = robustness.relative_to(only_fog, str(reference))
        assert (relative.mce, relative.relative_mce) == pytest.approx((0.5, 0.5))
    for errors, reference, message in (
        (some_errors(), str(file), "has no error of 'spatter', severity 1"),
        (some_errors(severities=(1,)), "alexnet", "means over severities 1 to 5: give all"),
        (only_fog, str(tmp_path / "none.csv"), "No such file or directory; expected 'alexnet' or a corruptions.csv"),
    ):
        with pytest.raises(InputError, match=message):
            robustness.relative_to(errors, reference)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"is not a corruptions\.csv of `cnnjax evaluate --corrupt`"):
        robustness.relative_to(only_fog, str(file))


def test_the_report_has_the_numbers_and_the_figures(digits_dir: str, tmp_path: pathlib.Path) -> None:
    net = network(preprocess="resize(8)")
    result = evaluate_robustness(
        net, tmp_path, corrupt="fog,spatter", severity="1,5", shift=1, data_dir=digits_dir, log=lambda line: None
    )
    assert result.folder.parent == tmp_path / "evaluations"
    files = {"corruptions.csv", "corruptions.png", "corruptions.svg", "examples.png", "robustness.json"}
    assert {path.name for path in result.folder.iterdir()} == files | {"shifts.csv", "shifts.png", "shifts.svg"}
    content = json.loads((result.folder / "robustness.json").read_text())
    assert result.corruptions
    assert result.shifts
    assert (
        content["mean_corruption_error"]
        == result.corruptions.mean
        == content["errors"]["fog"][0] / 2 + (content["errors"]["fog"][1] / 2)
    )
    with (result.folder / "corruptions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        ("none", "0"), ("fog", "1"), ("fog", "5"), ("spatter", "1"), ("spatter", "5"),
    ]  # fmt: skip
    assert float(rows[2]["error"]) == result.corruptions.errors[0, 1]
    again = evaluate_robustness(
        net, tmp_path, corrupt="fog", severity="5", reference=str(result.folder), data_dir=digits_dir,
        log=lambda line: None,
    )  # fmt: skip
    assert again.relative
    assert again.relative.mce == 1
    assert math.isclose(content["consistency"], result.shifts.consistency)
    images, labels = load("digits", "test[:30]", digits_dir).read(np.arange(30))
    moved = [predictions(net, [move(image, *to) for image in images]) for to in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    assert result.shifts.accuracy[1] == pytest.approx(np.mean([row == labels for row in moved]))


def test_relative_errors_are_kept_as_long_as_the_errors_are_the_same(digits_dir: str, tmp_path: pathlib.Path) -> None:
    options: dict[str, Any] = {"corrupt": "contrast", "severity": "5", "data_dir": digits_dir, "log": lambda line: None}
    reference = tmp_path / "reference.csv"
    reference.write_text("corruption,group,severity,error\nnone,,0,0.25\ncontrast,digital,5,0.5\n")
    first = evaluate_robustness(network(), tmp_path, reference=str(reference), **options)
    path = first.folder / "robustness.json"
    content = json.loads(path.read_text())
    assert first.relative
    assert (content["reference"], content["mce"]) == (str(reference), first.relative.mce)
    assert evaluate_robustness(network(), tmp_path, **options).folder == first.folder
    assert json.loads(path.read_text()) == content
    for harm in (lambda: path.write_text("{"), lambda: path.write_text(json.dumps(content | {"clean_error": 0.123}))):
        harm()
        evaluate_robustness(network(), tmp_path, **options)
        assert json.loads(path.read_text()).keys() == content.keys() - {"reference", "mce", "relative_mce"}


def test_the_errors_of_alexnet_are_for_imagenet_only(digits_dir: str, tmp_path: pathlib.Path) -> None:
    message = "'alexnet': expected a data set with ImageNet's 1,000 classes, got the 10 of 'digits', such as '0'; give"
    with pytest.raises(InputError, match=message):
        evaluate_robustness(network(), tmp_path, corrupt="fog", reference="alexnet", data_dir=digits_dir)
    for classes in (list(imagenet.names()), list(imagenet.names().values())):
        robustness.check_reference("alexnet", "imagenet2012", classes)
    others = [f"class {k}" for k in range(1000)]
    robustness.check_reference("corruptions.csv", "others", others)
    with pytest.raises(InputError, match="got the 1,000 of 'others', such as 'class 0'"):
        robustness.check_reference("alexnet", "others", others)


def test_the_split_is_chosen_as_in_a_usual_evaluation(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(network().config, dataset="digits", val_split="train[:9]", test_split="test[:5]")
    assert choose_split(config, "a", "", "", digits_dir) == ("digits", "test[:5]")
    assert choose_split(dataclasses.replace(config, test_split=""), "a", "", "", digits_dir)[1] == "train[:9]"
    nothing = network().replace(config=dataclasses.replace(config, test_split="", val_split=""))
    for source, description in ((tmp_path, {}), ("x.pth", {"init": "x.pth"})):
        with pytest.raises(InputError, match=f"^{source} has no test_split in its config; give --split"):
            evaluate_robustness(nothing, tmp_path, shift=1, data_dir=digits_dir, description=description)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--severity=3"], "--severity is for corrupted images: give --corrupt=all as well"),
        (["--reference=alexnet"], "--reference is for corrupted images"),
        (["--corrupt=fogg"], "unknown corruption: 'fogg'; did you mean 'fog'"),
        (["--corrupt=fog", "--severity=7"], "severity = '7': expected 1 to 5"),
    ],
)
def test_wrong_flags_are_one_line(flags: list[str], message: str, capsys: Any, tmp_path: pathlib.Path) -> None:
    weights = ["--init=x.pth", "--model=perceptron", "--classes=digits", f"--workdir={tmp_path}"]
    assert cli.main(["evaluate", *weights, *flags]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("init", "preprocess", "expected"),
    [
        ("", None, {}),
        ("", "resize(8)", {"preprocess": "resize(8)"}),
        ("", "rgb", {}),  # the run's own
        ("net.pth", "rgb", {"init": "net.pth", "model": "mlp", "preprocess": "rgb"}),  # the file's, as it was given
    ],
)
def test_settings_by_which_evaluations_differ_are_in_their_description(
    init: str, preprocess: str | None, expected: dict[str, str]
) -> None:
    config = Config(model="mlp", dataset="digits", preprocess="rgb")
    options = FileOptions(model="mlp" if init else "", preprocess=preprocess)
    found = changed_settings([config], {"preprocess": preprocess, "protocol": None}, init, options)
    assert found == expected


def test_a_setting_that_any_network_of_an_ensemble_does_not_have_is_in_the_description() -> None:
    configs = [Config(protocol=protocol) for protocol in ("single", "ten_crop(28)")]
    assert changed_settings(configs, {"protocol": "single"}, "", FileOptions()) == {"protocol": "single"}
    assert changed_settings(configs[:1], {"protocol": "single"}, "", FileOptions()) == {}
    found = changed_settings(configs, {"protocol": None}, "", FileOptions(), match_classes="name")
    assert found == {"match_classes": "name"}
