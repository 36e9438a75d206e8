"""The page of a sweep: the best trial, the leaderboard, what matters, and every trial as a line."""

import dataclasses
import pathlib

import pytest

from cnnjax import cli, register
from cnnjax.pages import page, sweep
from cnnjax.pages.parallel import Axis, ParallelLines
from cnnjax.runs import workdir
from cnnjax.sweep import report as sweep_report
from cnnjax.sweep.record import open_sweep
from cnnjax.tables import Table
from tests.pages import structure
from tests.pages.sweeps import SPACE, make_sweep, sweep_over_folds


def parsed(shown: sweep.SweepPage) -> structure.Document:
    return structure.check(page.render(sweep.TEMPLATE, page=shown))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> sweep.SweepPage:
    folder = tmp_path_factory.mktemp("sweep")
    return sweep.sweep_page(make_sweep(folder, 8), folder / "report.html")


def test_the_page_says_what_was_best(shown: sweep.SweepPage) -> None:
    document = parsed(shown)
    text = document.all("main")[0].text
    assert (shown.best, dict(shown.best_settings)) == ("90.00%", {"lr": "0.1", "model.activation": "tanh"})
    assert "Validation accuracy of the best trial" in text
    assert dict(shown.counts) == {"complete": 8, "failed": 1}
    assert [row[0] for row in shown.leaderboard.rows] == [*map(str, range(8)), "8"]
    assert shown.failures == ("trial 8: exit status 1",)
    assert [name for name, _ in shown.sections()] == [each["id"] for each in document.all("section")]


def test_only_settings_with_all_folds_win(tmp_path: pathlib.Path) -> None:
    trials = [(0.1, "1/3", 0.9), (0.2, "1/3", 0.8), (0.2, "2/3", 0.6), (0.2, "3/3", 0.7)]
    swept = sweep_over_folds(tmp_path, trials)
    shown = sweep.sweep_page(swept, tmp_path / "report.html")
    assert (shown.best, dict(shown.best_settings)) == ("70.00%", {"lr": "0.2"})
    assert sweep_report.best(swept).lr == 0.2
    assert shown.over_folds
    assert [(row[0], row[1], row[-1]) for row in shown.over_folds.rows] == [
        ("1", "0.2", "3 of 3"),
        ("-", "0.1", "1 of 3"),
    ]
    early = sweep.sweep_page(sweep_over_folds(tmp_path, trials[:3]), tmp_path / "report.html")
    assert early.best == ""
    assert "No settings have a complete trial for each fold yet" in parsed(early).all("main")[0].text
    assert not any("sweep best" in line for _, line in early.commands)


def test_a_line_for_each_complete_trial_names_it(shown: sweep.SweepPage) -> None:
    document = parsed(shown)
    titles = [each.text for each in document.all("title") if "svg" in each.path]
    assert len(titles) == 8
    assert titles[-1] == "trial 0: 90.00% (lr 0.1, model.activation tanh)"  # drawn last, on top
    assert shown.parallel
    assert [axis.name for axis in shown.parallel.axes] == ["lr", "model.activation", "validation accuracy"]
    assert [text for _, text in shown.parallel.axes[-1].ticks] == ["55.00%", "72.50%", "90.00%"]
    assert [axis.places[0] for axis in shown.parallel.axes] == pytest.approx([1, 0, 1])


def test_what_matters_adds_up(shown: sweep.SweepPage) -> None:
    assert sum(bar.fraction for bar in shown.importance) == pytest.approx(1)
    assert {bar.name for bar in shown.importance} == set(SPACE)


def test_the_values_and_the_best_so_far_are_charts(shown: sweep.SweepPage) -> None:
    charts = parsed(shown).charts()
    values, best = (line["y"] for line in charts["In the order of the trials"]["lines"])
    assert values == pytest.approx([0.9 - 0.05 * i for i in range(8)])
    assert best == pytest.approx([0.9] * 8)
    assert len(charts["During the training"]["lines"]) == 8


@pytest.mark.parametrize("trials", [0, 1])
def test_a_sweep_that_has_just_begun_has_a_page(trials: int, tmp_path: pathlib.Path) -> None:
    shown = sweep.sweep_page(make_sweep(tmp_path, trials), tmp_path / "report.html")
    text = parsed(shown).all("main")[0].text
    assert ("No trial is complete yet" in text) == (trials == 0)
    assert shown.parallel is None


def test_the_page_of_the_best_run_is_linked(tmp_path: pathlib.Path) -> None:
    made = make_sweep(tmp_path, 2)
    run = tmp_path / "trials" / "0000"
    run.mkdir(parents=True)
    (run / "report.html").write_text("")
    shown = sweep.sweep_page(made, tmp_path / "report.html")
    assert shown.best_run == "trials/0000/report.html"
    assert shown.commands[0][1] == f"cnnjax report {run}"
    assert "trials/0000/report.html" in [link["href"] for link in parsed(shown).all("a")]


def test_the_commands_have_the_data_and_the_code_of_the_sweep(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "flags", lambda: ["--import=/net.py"])
    made = make_sweep(tmp_path, 2)
    made = dataclasses.replace(made, settings=dataclasses.replace(made.settings, data_dir="/data"))
    report, best, resume = (line for _, line in sweep.sweep_page(made, tmp_path / "report.html").commands)
    assert report.endswith(" --data_dir=/data --import=/net.py")
    assert best.endswith(f" sweep best {tmp_path} --import=/net.py")
    assert resume.endswith(f" sweep --workdir={tmp_path} --import=/net.py")


def test_the_command_writes_the_page_of_a_sweeps_folder(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_sweep(tmp_path, 0).settings
    workdir.write_json(tmp_path / "sweep.json", dataclasses.asdict(settings))
    open_sweep(tmp_path, settings, print, writable=True)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"the page is {tmp_path}/report.html (")
    assert "No trial is complete yet" in structure.check((tmp_path / "report.html").read_text()).all("main")[0].text


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str, shown: sweep.SweepPage) -> None:
    table = Table(("", text), [[text, text]])
    axes = (Axis(text, (0.0, 1.0), ((0.0, text),)), Axis("value", (1.0, 0.0), ()))
    hostile = dataclasses.replace(
        shown,
        folder=text,
        metric=text,
        best_settings=((text, text),),
        best_run=f"{text}/report.html",
        leaderboard=table,
        importance=(page.Bar(text, text, 0.5),),
        parallel=ParallelLines(axes, (text, text), text),
        failures=(text,),
        search=table,
        commands=((text, text),),
    )
    assert len(parsed(hostile).all("script")) == len(parsed(shown).all("script"))
