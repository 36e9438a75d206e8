"""Facts: each of the project's is right, what a rounded number agrees with, the command and its reports."""

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from cnnjax import cli, config_files
from cnnjax.errors import InputError
from cnnjax.study import facts
from cnnjax.study.facts import HELD, REFUTED, Fact, Number, agrees, check

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [path for path in sorted((ROOT / "experiments").glob("*.py")) if "def get_facts" in path.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_fact_is_right_and_its_report_is_up_to_date(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A failure means that a number has changed: run the command in the file again, and read its report."""
    reports = [check(fact) for fact in config_files.read_facts(str(path))]
    command = f"./launch.sh study experiments/{path.name}"
    assert command in path.read_text().split('"""')[1]
    facts.write(tmp_path / path.stem, reports, command)
    for suffix in (".md", ".json"):
        committed = ROOT / "experiments" / "reports" / f"{path.stem}{suffix}"
        assert committed.read_text() == (tmp_path / committed.name).read_text()


def test_facts_have_names_of_their_own_and_a_source_each() -> None:
    reports = [fact for path in FILES for fact in facts.read(ROOT / "experiments" / "reports" / f"{path.stem}.json")]
    assert len(reports) >= 60
    assert len({report.name for report in reports}) == len(reports)
    assert {report.verdict for report in reports} == {HELD, REFUTED}
    assert all(report.source and report.why.endswith(".") and report.statement.endswith(".") for report in reports)
    assert all(report.taught.keys() <= report.computed.keys() for report in reports)


@pytest.mark.parametrize(
    ("stated", "exact", "expected"),
    [
        ("24 M", 15_237_608, False),
        ("15 M", 15_237_608, True),
        ("16 M", 15_237_608, True),  # rounded up
        ("60 M", 60_965_224, True),
        ("61 M", 60_965_224, True),
        ("60 M", 61_000_000, False),
        ("62 M", 60_965_224, False),
        ("6.8 M", 6_998_552, False),
        ("7.0 M", 6_998_552, True),
        ("0.27 M", 269_722, True),
        ("93 MB", 60_950_432, False),
        ("3.9 GB", 3_900_827_648, True),
        ("89 %", 89.36, True),
        ("12 times", 8.711, False),
        ("8 times", 8.845, True),
        ("2.5 k", 2_499.0, True),
        (156, 156, True),
        (156, 157, False),
        ((28, 14), (28, 14), True),
        ((28, 14), (28, 10), False),
        (True, True, True),
        (True, False, False),
        (25, 25.0, True),
        (0.25, 0.25, True),
    ],
)
def test_a_rounded_number_agrees_within_a_unit_of_its_last_digit(stated: Any, exact: Any, expected: bool) -> None:
    assert agrees(stated, exact) is expected


@pytest.mark.parametrize(
    ("stated", "exact"), [("many", 3), ("24M!", 3), ("-3 M", 3), ("55, 27", (55, 27)), ("3 M", "3")]
)
def test_other_text_is_no_number(stated: str, exact: Any) -> None:
    with pytest.raises(InputError, match="expected a rounded number, such as"):
        agrees(stated, exact)


FACT = Fact(
    name="sides",
    chapter="padding",
    statement="A side of 7 has 3 places.",
    source="taught so in lectures",
    numbers=(Number("places", right=2, taught=3), Number("rounded up", right=3)),
    compute=lambda: {"places": 2, "rounded up": 3},
    why="Two.",
)


def test_the_verdict_is_that_of_the_numbers_which_are_taught() -> None:
    report = check(FACT)
    assert report.verdict == REFUTED
    assert (report.taught, report.computed) == ({"places": 3}, {"places": 2, "rounded up": 3})
    held = check(dataclasses.replace(FACT, numbers=(Number("places", 2, "2 times"), Number("rounded up", 3, 3))))
    assert held.verdict == HELD
    half = check(dataclasses.replace(FACT, numbers=(Number("places", 2, 2), Number("rounded up", 3, 4))))
    assert half.verdict == REFUTED
    yes = dataclasses.replace(FACT, numbers=[Number("it fits", True, False)], compute=lambda: {"it fits": True})
    assert check(yes).verdict == REFUTED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chapter": "paddings"}, "unknown chapter 'paddings'; did you mean 'padding'?"),
        ({"compute": lambda: {"places": 2}}, "sides computes places; expected places, rounded up"),
        ({"compute": lambda: {"rounded up": 3, "places": 2}}, "sides computes rounded up, places; expected places"),
        ({"compute": lambda: {"places": 2, "rounded up": 4}}, "sides: rounded up is 4 as computed, 3 by hand"),
        (
            {"numbers": (Number("places", 2), Number("rounded up", 3))},
            "sides: none of its numbers has a value as taught",
        ),
        ({"numbers": (Number("places", 2, "two"), Number("rounded up", 3))}, "'two': expected a rounded number"),
    ],
)
def test_a_fact_that_is_inconsistent_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        check(dataclasses.replace(FACT, **changes))


def test_a_report_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    facts.write(tmp_path / "mine", [check(FACT)], "cnnjax study mine.py")
    assert facts.read(tmp_path / "mine.json") == (check(FACT),)
    page = (tmp_path / "mine.md").read_text()
    assert page.startswith("# mine: 1 refuted\n")
    statement = "A side of 7 has 3 places. (taught so in lectures)"
    assert f"| {statement} | places: 3 | places: 2<br>rounded up: 3 | **refuted** | Two. |" in page
    for damaged in ("{", "{}", '{"facts": [{"name": "sides"}]}', '{"facts": 3}', "[]"):
        (tmp_path / "mine.json").write_text(damaged)
        with pytest.raises(InputError, match=r"mine\.json is damaged"):
            facts.read(tmp_path / "mine.json")
    with pytest.raises(InputError, match=r"other\.json: no such file"):
        facts.read(tmp_path / "other.json")


FILE = """
from cnnjax.study.facts import Fact, Number

def get_facts():
    return [Fact("one", "depth", "One is two.", "Nobody.", [Number("one", 1, 2)], lambda: {"one": 1}, "It is not.")]
"""


@pytest.mark.parametrize(("folder", "name"), [(".", "mine.py"), ("experiments", "mine")])
def test_the_command_computes_and_reports_beside_the_file(
    folder: str,
    name: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    reports = pathlib.Path(folder, "reports")
    reports.mkdir(parents=True)
    (reports.parent / "mine.py").write_text(FILE)
    assert cli.main(["study", name]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "mine: 1 refuted" in captured.out
    assert f"the report is {reports / 'mine.md'}, with mine.json" in captured.out
    assert json.loads((reports / "mine.json").read_text())["facts"][0]["verdict"] == REFUTED


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (FILE.replace("[Fact(", "3, [Fact("), "mine.py gives no study: get_facts() returned something other than"),
        ("def get_facts():\n    return ()", "mine.py gives no study: get_facts() returned something other than"),
        ("def get_facts():\n    return 1 / 0", "mine.py gives no study: ZeroDivisionError: division by zero"),
        (FILE.replace("Number(", "Numbre("), "mine.py gives no study: NameError: name 'Numbre' is not defined"),
        (FILE.replace("depth", "dept"), "unknown chapter 'dept'; did you mean 'depth'?"),
        (FILE.replace('{"one": 1}', '{"one": 3}'), "one: one is 3 as computed, 1 by hand"),
    ],
)
def test_a_wrong_file_of_facts_is_a_one_line_error(
    file: str, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(file)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "mine.py"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not pathlib.Path("reports").exists()
