"""The page of a run: what it shows of a folder, while the run trains, once it is complete, and without its data."""

import contextlib
import dataclasses
import io
import pathlib
import re
import shlex
import shutil
from typing import Any, NamedTuple

import numpy as np
import pytest

import cnnjax
from cnnjax import cli, config, sealed
from cnnjax.errors import InputError
from cnnjax.evaluation import report as evaluation_report
from cnnjax.pages import evaluations, run
from cnnjax.pages.evaluations import Evaluation
from cnnjax.pages.tiles import Tiles
from cnnjax.runs import workdir
from cnnjax.tables import Table
from tests import tiny
from tests.pages import structure

SECTIONS = ["result", "curves", "mistakes", "data", "network", "settings", "commands"]


class Finished(NamedTuple):
    """A run that `cnnjax train --report` has trained: its folder, the pages that were written, and what was printed."""

    folder: pathlib.Path
    pages: list[str]
    output: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> Finished:
    folder, pages, write = tmp_path_factory.mktemp("runs") / "finished", [], run.page.write
    settings = {**tiny.CONFIG, "model": "lenet5", "augment": "resize(28)|pad_crop(1)", "preprocess": "resize(28)"}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(run, "LIVE_SECONDS", 0)
        patch.setattr(run.page, "write", lambda path, text: [pages.append(text), write(path, text)][-1])
        words = ["train", "digits_lenet5", *flags, f"--workdir={folder}", f"--data_dir={digits_dir}", "--report"]
        assert cli.main(words) == 0
    return Finished(folder, pages, output.getvalue())


@pytest.fixture(scope="module")
def shown(finished: Finished) -> run.RunPage:
    """Returns the page of the finished run, read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "evaluate_run", lambda *args, **kwargs: pytest.fail("evaluated again"))
        return run.read_run(finished.folder, log=lambda line: None)


@pytest.fixture(scope="module")
def page(shown: run.RunPage) -> structure.Document:
    return structure.check(run.render(shown))


def test_every_section_is_there_and_linked(page: structure.Document) -> None:
    assert [each["id"] for each in page.all("section")] == SECTIONS
    assert [each["href"] for each in page.all("a")] == ["#main", *(f"#{name}" for name in SECTIONS)]
    assert page.all("h1")[0].text == "lenet5 on digits"
    assert page.all("span", class_="status")[0].text == "Finished after step 8"
    assert not page.all("meta", **{"http-equiv": "refresh"})


def test_the_result_is_that_of_the_evaluation(shown: run.RunPage, finished: Finished) -> None:
    (evaluation,) = evaluations.read_evaluations(finished.folder)
    assert shown.result
    assert shown.result.accuracy == evaluation.content["accuracy"]
    assert shown.result.sentence.startswith(
        "of 37 images are classified correctly (digits test[64:101], step 8). 95% interval by the"
    )
    assert shown.mistakes
    counts = [[cell.count for cell in row] for row in shown.mistakes.confusion]
    assert counts == evaluation.content["confusion"]
    assert sum(map(sum, counts)) == 37
    accuracies = [row[2] for row in shown.mistakes.per_class.rows]
    assert accuracies == sorted(accuracies, key=lambda text: float(text.removesuffix("%")))
    assert [row[2] for row in shown.mistakes.pairs.rows] == sorted(row[2] for row in shown.mistakes.pairs.rows)[::-1]


def test_the_curves_are_those_of_the_metrics(page: structure.Document) -> None:
    found = page.charts()
    assert list(found) == ["Loss", "Accuracy", "Learning rate", "Speed", "ROC curves"]
    assert found["Loss"]["x"] == pytest.approx([2 / 6, 4 / 6, 1, 8 / 6], abs=1e-4)
    assert [line["label"] for line in found["Loss"]["lines"]] == ["training", "validation"]
    assert found["Loss"]["lines"][1]["y"][0] is None


def test_the_pictures_are_of_data_network_and_mistakes(page: structure.Document) -> None:
    alts = [each["alt"] for each in page.all("img") if not each["alt"].startswith("Image ")]
    starts = [re.split(":|;| digits", alt)[0] for alt in alts]
    assert starts == [
        "Reliability diagram of",
        "Training images of",
        "The network as a chain of layers and blocks",
        "The filters of the first convolution. c1",
        "The strongest feature maps of an image. 5 layers, c1 to c5",
    ]
    charts = [
        each["alt"] for each in page.all("img", class_="chart-image")
    ]  # dark on a dark page; images stay as they are
    assert charts == [alts[0], alts[2]]


def test_the_mistakes_are_images_and_without_the_data_set_the_sheet_that_was_drawn(
    shown: run.RunPage, page: structure.Document, finished: Finished
) -> None:
    assert shown.mistakes
    assert shown.mistakes.images
    (evaluation,) = evaluations.read_evaluations(finished.folder)
    wrong = evaluation.content["count"] - evaluation.content["top1_right"]
    assert len(shown.mistakes.images.tiles) == min(wrong, 24)
    assert shown.mistakes.images.tiles[0].alt in [each["alt"] for each in page.all("img")]
    without = evaluations.mistakes_of(evaluation, None)
    assert without.images is None
    assert len(without.pictures) == len(shown.mistakes.pictures) + 1
    assert without.pictures[-1].alt.startswith("The most confident mistakes of digits test")


def test_the_settings_are_those_that_differ(shown: run.RunPage) -> None:
    changed = {row[0]: row[1] for row in shown.settings.rows}
    assert (changed["lr"], changed["duration"]) == ("0.05", "8 steps")
    assert "ema" not in changed
    assert {row[0] for row in shown.versions.rows} >= {"jax", "python", "devices"}


def test_the_commands_are_quoted(shown: run.RunPage) -> None:
    moved = pathlib.Path("a 'folder'; $(rm)")
    lines = [shlex.split(line) for _, line in run.provenance.commands(moved, "my data")]
    assert [line[1] for line in lines] == ["train", "evaluate", "predict", "visualize", "export"]
    assert lines[0][2:] == [f"--config={moved}/config.json", f"--workdir={moved}-again", "--data_dir=my data"]
    assert all(line[2] == str(moved) for line in lines[1:])


def test_without_its_data_a_run_shows_the_rest_and_says_how(
    finished: Finished, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.network, "_inside", lambda *args: ())
    (tmp_path / "data").mkdir()
    lines: list[str] = []
    shown = run.read_run(finished.folder, data_dir=str(tmp_path / "data"), log=lines.append)
    assert lines == []
    assert [*(tmp_path / "data").iterdir()] == []  # nothing was built
    assert list(shown.gaps) == ["data"]
    page = structure.check(run.render(shown))
    assert "--data_dir=DIR" in page.all("section", id="data")[0].text


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> pathlib.Path:
    """Returns the folder of a run that a signal stopped at step 4 of 8."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    tiny.interrupt(folder, digits_dir, 4)
    return folder


def test_a_run_in_progress_reloads_itself_and_a_stopped_one_does_not(stopped: pathlib.Path) -> None:
    for context, expected in ((workdir.hold_lock(stopped, "training"), True), (contextlib.nullcontext(), False)):
        with context:
            run.write_quick(stopped, pytest.fail)
        page = structure.check((stopped / run.FILE).read_text())
        reloads = [each["content"] for each in page.all("meta") if each.attributes.get("http-equiv") == "refresh"]
        assert reloads == ["30"] * expected
        status = page.all("span", class_="status")[0].text
        assert status.startswith("Training: step 4 of 8, written at " if expected else "Not finished: step 4 of 8")
        assert page.all("img") == []
        assert ("Resume it:" in page.all("section", id="commands")[0].text) == (not expected)
        assert list(page.charts()) == ["Loss", "Accuracy", "Learning rate", "Speed"]


@pytest.mark.parametrize(
    ("of", "times"), [({}, 0), ({"step": 2}, 1), ({"ensemble": "a, b"}, 1), ({"probe": "knn"}, 1), ({"split": "t"}, 1)]
)
def test_the_last_checkpoint_is_evaluated_if_it_is_not_yet(
    of: dict[str, Any], times: int, stopped: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    description = {"dataset": "digits", "split": "test[64:101]", "step": 4} | of
    evaluation = folder / "evaluations" / evaluation_report.folder_name(**description)
    evaluation.mkdir(parents=True)
    (evaluation / "scores.npz").touch()
    content = description | {"count": 9, "top1_right": 1, "accuracy": 1 / 9, "per_class": {}}
    sealed.write_plain_json(evaluation / "metrics.json", content)
    evaluated: list[pathlib.Path] = []
    monkeypatch.setattr(run, "evaluate_run", lambda folder, **options: evaluated.append(folder))
    monkeypatch.setattr(run.network, "_inside", lambda *args: ())
    monkeypatch.setattr(run.evaluations, "mistakes_of", lambda *args: None)
    run.read_run(folder, data_dir=digits_dir, log=lambda line: None)
    assert evaluated == [folder] * times


def test_a_run_that_cannot_be_evaluated_has_a_page_that_says_how(
    stopped: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise InputError("no test split")

    monkeypatch.setattr(run, "evaluate_run", refuse)
    monkeypatch.setattr(run.network, "_inside", lambda *args: ())
    lines: list[str] = []
    shown = run.read_run(stopped, data_dir=digits_dir, log=lines.append)
    assert lines == ["the run is not evaluated: no test split"]
    assert (shown.result, shown.mistakes) == (None, None)
    result = structure.check(run.render(shown)).all("section", id="result")[0].text
    assert "The run is not evaluated yet:" in result
    assert f"cnnjax evaluate {stopped} --data_dir={digits_dir}" in result


def test_code_of_ones_own_that_a_run_needs_is_named(stopped: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(folder: pathlib.Path) -> None:
        raise InputError(f"{folder} needs --import=mine.py")

    monkeypatch.setattr(run.register, "check_imports", missing)
    with pytest.raises(InputError, match=r"needs --import=mine\.py"):
        run.read_run(stopped)


def test_a_run_that_has_just_begun_has_a_page(stopped: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.history, "read", lambda folder: run.history.History([], []))
    page = structure.check(run.render(run.read_run(stopped, pictures=False, evaluate=False)))
    assert page.all("span", class_="status")[0].text == "Not finished: step 0 of 8 steps"
    assert not page.all("section", id="curves")


def test_updates_are_rare_and_a_page_that_cannot_be_written_ends_no_training(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[pathlib.Path] = []
    monkeypatch.setattr(run, "write_quick", lambda folder, log: written.append(folder))
    clock = iter([0.0, 0.0, 59.0, 61.0, 61.0])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    update = run.live_updates(tmp_path, print)
    for _ in range(3):
        update()
    assert len(written) == 2
    monkeypatch.undo()
    lines: list[str] = []
    run.write_quick(tmp_path, lines.append)
    said = f"the page of the run is not written: {tmp_path} is not a run's folder: it has no config.json"
    assert lines == [said]
    monkeypatch.setattr(run, "LIVE_SECONDS", 0)
    update = run.live_updates(tmp_path, lines.append)
    for _ in range(3):
        update()
    assert lines == [said, said]
    monkeypatch.setattr(run, "read_run", lambda *args, **options: {}["bn"])
    update()
    assert lines[2:] == ["the page of the run is not written: KeyError('bn')"]


def test_training_with_a_page_updates_it_and_ends_with_all_of_it(finished: Finished, shown: run.RunPage) -> None:
    pages = [structure.check(text) for text in finished.pages]
    status = [page.all("span", class_="status")[0].text.partition(",")[0] for page in pages]
    assert status == [f"Training: step {step} of 8" for step in (2, 4, 4, 6, 8, 8, 8)] + ["Finished after step 8"]
    assert [each["id"] for each in pages[0].all("section")] == ["result", "curves", "data", *SECTIONS[4:]]
    assert [each["id"] for each in pages[-1].all("section")] == SECTIONS
    assert f"the page is {finished.folder}/report.html" in finished.output


def test_the_command_that_evaluates_the_run_has_its_data(finished: Finished, digits_dir: str) -> None:
    shown = "".join(re.sub("[│ \n]", "", finished.output).split())
    assert f"cnnjaxevaluate{finished.folder}--data_dir={digits_dir}" in shown


def test_the_command_writes_a_page_and_says_where(
    finished: Finished, shown: run.RunPage, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run, "read_run", lambda folder, **options: shown)
    path = tmp_path / "page.html"
    assert cli.main(["report", str(finished.folder), f"--to={path}"]) == 0
    assert capsys.readouterr().out == f"the page is {path} ({path.stat().st_size / 1e6:.1f} MB)\n"
    assert path.stat().st_size < 3e6
    assert cnnjax.report(finished.folder) == finished.folder / "report.html"
    for arguments, message in (
        (["nowhere"], "nowhere does not exist"),
        (
            [str(tmp_path)],
            f"{tmp_path} is neither the folder of a run, of a sweep or of a study that has a report, nor a study's "
            "report",
        ),
        ([str(finished.folder), "--to=page.pdf"], "page.pdf: expected the name of a file that ends in .html"),
    ):
        assert cli.main(["report", *arguments]) == 1
        assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str, shown: run.RunPage) -> None:
    assert shown.mistakes
    assert shown.mistakes.images
    assert shown.data
    chart = shown.charts[0]
    tile = dataclasses.replace(shown.mistakes.images.tiles[0], alt=text, lines=(text, text))
    lines = tuple(dataclasses.replace(line, label=text) for line in chart.lines)
    hostile = dataclasses.replace(
        shown,
        title=text,
        folder=text,
        progress=text,
        config=text,
        charts=(dataclasses.replace(chart, title=text, y_label=text, lines=lines),),
        commands=((text, text),),
        settings=Table(["setting", text], [[text, text]]),
        mistakes=dataclasses.replace(shown.mistakes, classes=(text,) * 10, images=Tiles(text, text, (tile,))),
        data=dataclasses.replace(shown.data, counts=(run.page.Bar(text, text, 0.5),), pictures=()),
        gaps={"data": run.Gap(text, text)},
    )
    page = structure.check(run.render(hostile))
    assert (page.all("h1")[0].text, page.all("title")[0].text) == (text, text)
    assert [each["label"] for each in page.charts()[text]["lines"]] == [text, text]
    assert text in page.all("table", class_="confusion")[0].text
    assert len(page.all("script")) == 2 + 2  # ours, and the data of two charts


def test_five_thousand_classes_are_a_page_of_pairs_and_a_folded_table(
    shown: run.RunPage, tmp_path: pathlib.Path
) -> None:
    count, rng = 5000, np.random.default_rng(0)
    names = [f"class number {i} & co" for i in range(count)]
    confusion = np.eye(count, dtype=np.int16) * 9
    confusion[rng.integers(0, count, 999), rng.integers(0, count, 999)] += 3
    confusion[7, 4000] = 500
    columns = {name: np.full(count, 0.5) for name in ("images", "accuracy", "precision", "f1", "roc_auc")}
    evaluation_report.write_csv(tmp_path / "per_class.csv", {"class": names, **columns})
    content = {"dataset": "many", "split": "test", "step": 1, "per_class": dict.fromkeys(names, 0.5), "ece": None}
    mistakes = evaluations.mistakes_of(Evaluation(tmp_path, {**content, "confusion": confusion}), None)
    assert (mistakes.confusion, mistakes.curves, mistakes.pictures) == ((), (), ())
    assert mistakes.pairs.rows[0][:3] == [names[7], names[4000], "500"]
    assert len(mistakes.pairs.rows) == evaluations.MAX_PAIRS
    text = run.render(dataclasses.replace(shown, mistakes=mistakes))
    assert len(text.encode()) < 10e6
    page = structure.check(text)
    assert "Every class, the hardest first (5,000 rows)" in [each.text for each in page.all("summary")]


def test_the_latest_evaluation_of_the_runs_own_test_is_its_result(tmp_path: pathlib.Path) -> None:
    settings = config.Config(dataset="digits", test_split="test")
    own = {"dataset": "digits", "split": "test"}
    entries = [
        {**own, "step": 9, "probe": "knn", "k": 5},
        {**own, "step": 6, "probe": "linear", "C": 0.1},
        {**own, "step": 8, "protocol": "ten_crop(24)"},
        {"dataset": "mnist", "split": "test", "step": 8},
        {**own, "step": 4},
        {**own, "step": 6},
    ]
    found = [Evaluation(tmp_path, entry) for entry in entries]
    main = evaluations.main_evaluation(found, settings)
    assert main
    assert main.content is entries[-1]
    assert evaluations.main_evaluation(found[:2], settings) is None
    other = evaluations.main_evaluation(found[2:4], settings)
    assert other
    assert other.content["step"] == 8
    without_test = config.Config(dataset="digits", test_split="", val_split="train[:9]")
    found = [Evaluation(tmp_path, {**own, "split": split, "step": 4}) for split in ("train", "train[:9]")]
    assert evaluations.main_evaluation(found, without_test) is found[1]


def test_evaluations_of_other_weights_are_not_the_runs(tmp_path: pathlib.Path) -> None:
    options = {"own": {}, "flip": {"protocol": "flip"}, "weights": {"init": "x"}, "several": {"ensemble": "a, b"}}
    for name, given in options.items():
        path = tmp_path / "evaluations" / name / "metrics.json"
        path.parent.mkdir(parents=True)
        sealed.write_plain_json(path, {"dataset": "digits", "split": "test", "step": 4, **given})
    assert {each.folder.name for each in evaluations.read_evaluations(tmp_path)} == {"own", "flip"}


def test_a_damaged_evaluation_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "evaluations" / "one" / "metrics.json"
    path.parent.mkdir(parents=True)
    sealed.write_atomically(path, b"{")
    with pytest.raises(InputError, match=r"metrics\.json is damaged: .*; evaluate the run again"):
        evaluations.read_evaluations(tmp_path)
