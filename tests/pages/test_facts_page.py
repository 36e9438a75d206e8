"""The page of facts: each sentence with its verdict and its numbers, from the record of the file."""

import dataclasses
import pathlib
import shutil

import pytest

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.pages import facts, page
from cnnjax.study import facts as records
from tests.pages import structure

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
REPORTS = sorted(EXPERIMENTS.glob("reports/arithmetic_*.json"))
REPORT = EXPERIMENTS / "reports" / "arithmetic_lenet.json"


def parsed(shown: facts.FactsPage) -> structure.Document:
    return structure.check(page.render(facts.TEMPLATE, page=shown))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_every_report_becomes_a_page(path: pathlib.Path) -> None:
    document = parsed(facts.facts_page(path))
    text = words(document.all("main")[0].text)
    verdicts = [each.text.lower() for each in document.all("strong")]
    assert verdicts == [fact.verdict for fact in records.read(path)]
    for fact in records.read(path):
        assert words(fact.statement) in text
        assert words(fact.why) in text
    assert [each["id"] for each in document.all("section")] == ["facts", "again"]
    assert {each.text for each in document.all("caption")} == {"The numbers that decide it"}


def test_a_number_stands_beside_what_is_taught() -> None:
    rows = {shown.report.name: list(shown.numbers.rows) for shown in facts.facts_page(REPORT).facts}
    assert rows["lenet_shapes"][0] == ["sides", "28, 14, 10, 5, 1", "28, 14, 10, 5, 1"]
    computed_only = [row for fact in rows.values() for row in fact if row[1] == "-"]
    assert ["total if flattened", "-", "1,286,534"] in computed_only


def test_a_report_is_found_by_any_of_its_names(tmp_path: pathlib.Path) -> None:
    for source in (REPORT, REPORT.with_suffix(".md"), EXPERIMENTS / "arithmetic_lenet.py"):
        assert facts.find_report(source) == REPORT
    (tmp_path / "damaged.json").write_text("{")
    others = (EXPERIMENTS / "kernel_size.py", EXPERIMENTS / "reports" / "kernel_size-standard.json", tmp_path)
    for source in (*others, tmp_path / "damaged.json"):
        assert facts.find_report(source) is None, source
        with pytest.raises(InputError, match="no report of these facts"):
            facts.report(source)


def test_the_command_writes_the_page_beside_the_report(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(REPORT, tmp_path)
    assert cli.main(["report", str(tmp_path / REPORT.name)]) == 0
    path = tmp_path / "arithmetic_lenet.html"
    assert capsys.readouterr().out.startswith(f"the page is {path} ")
    document = structure.check(path.read_text())
    assert document.all("h1")[0].text == "Facts: arithmetic lenet"
    assert document.all("span", class_="status")[0].text == "8 held, 1 refuted"


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str) -> None:
    shown = facts.facts_page(REPORT)
    report = dataclasses.replace(shown.facts[0].report, name=text, statement=text, source=text, why=text)
    fact = dataclasses.replace(shown.facts[0], report=report)
    hostile = dataclasses.replace(shown, name=text, counts=text, facts=(fact,), rule=text, command=text)
    assert len(parsed(hostile).all("script")) == len(parsed(shown).all("script"))
