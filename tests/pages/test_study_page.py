"""The page of a study: claims with their verdicts, figure, arms and numbers, from the files of its report."""

import dataclasses
import pathlib
import shutil

import pytest

from cnnjax import cli, config_files
from cnnjax.errors import InputError
from cnnjax.pages import page, study
from cnnjax.study import words
from cnnjax.study.record import read_report
from cnnjax.tables import Table
from tests.pages import structure

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
REPORTS = sorted(EXPERIMENTS.glob("reports/*-*.json"))
REPORT = EXPERIMENTS / "reports" / "kernel_size-standard.json"


def parsed(shown: study.StudyPage) -> structure.Document:
    return structure.check(page.render(study.TEMPLATE, page=shown))


@pytest.fixture(scope="module")
def shown() -> study.StudyPage:
    return study.study_page(REPORT)


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_every_report_becomes_a_page(path: pathlib.Path) -> None:
    record, document = read_report(path), parsed(study.study_page(path))
    text = " ".join(document.all("main")[0].text.split())
    for claim in record.claims:
        assert all(part.lower() in text.lower() for part in " ".join(claim.headline.split()).split(": ", 1))
        assert claim.statement in text
    figures = [file for file in (path.with_suffix(".svg"), path.with_suffix(".png")) if file.exists()]
    assert [each.attributes.get("class") for each in document.all("img")] == ["chart-image"] * bool(figures)
    names = {claim.name.replace("_", " ") for claim in record.claims}
    assert not names & {each.text.lower() for each in document.all("caption")}  # a name is no caption


def test_the_page_has_settings_remarks_and_numbers(shown: study.StudyPage) -> None:
    document = parsed(shown)
    text = document.all("main")[0].text
    assert "batch_size 64" in shown.shared
    own = config_files.read_study(str(EXPERIMENTS / "kernel_size.py"), "standard")
    remarks = [claim.remarks for claim in own.claims if claim.remarks]
    assert remarks
    assert all(" ".join(words.split()) in text for words in (*remarks, own.remarks, own.vary))
    assert shown.means
    assert shown.runs
    assert all("%" in cell for cell in shown.means.columns()[1]), shown.means.headings[1]
    assert all(len(cell) <= 9 for row in shown.runs.rows for cell in row[2:])
    arms = sorted({row[0] for row in shown.runs.rows})
    assert sorted(row[0] for row in shown.means.rows) == arms
    assert [name for name, _ in shown.sections()] == [each["id"] for each in document.all("section")]
    assert shown.command == f"cnnjax study {EXPERIMENTS / 'kernel_size.py'} --budget=standard"


def test_a_comparison_has_its_interval_after_the_difference(shown: study.StudyPage) -> None:
    (first, *_), columns = shown.claims[0].findings.rows, list(shown.claims[0].findings.headings)
    finding = read_report(REPORT).claims[0].findings[0]
    assert (
        first[columns.index("difference")] == f"{words.amount(finding, finding.difference)} ({words.interval(finding)})"
    )
    labels = {each["data-label"] for each in parsed(shown).all("td") if "data-label" in each.attributes}
    assert labels == set(columns[1:])


def test_without_its_file_a_study_has_verdicts_and_numbers(tmp_path: pathlib.Path) -> None:
    for suffix in (".json", ".csv"):
        shutil.copy(REPORT.with_suffix(suffix), tmp_path)
    shown = study.study_page(tmp_path / REPORT.name)
    assert shown.claims
    assert shown.means
    assert (shown.arms, shown.shared, shown.figure) == (None, "", None)
    parsed(shown)


def test_a_report_is_found_by_any_of_its_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs = tmp_path / "kernel_size"
    runs.mkdir()
    for source in (REPORT, REPORT.with_suffix(".md"), EXPERIMENTS / "kernel_size.py", runs):
        found = study.find_report(source)
        assert found
        assert found.resolve() == REPORT, source
    others = ("no", EXPERIMENTS / "reports" / "arithmetic_vgg.json", EXPERIMENTS / "arithmetic_vgg.py", tmp_path)
    assert [study.find_report(pathlib.Path(source)) for source in others] == [None] * 4
    with pytest.raises(InputError, match="there is no report of this study yet"):
        study.report(tmp_path)


def test_the_command_writes_the_page_beside_the_report(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in REPORT.parent.glob(f"{REPORT.stem}.*"):
        shutil.copy(file, tmp_path)
    assert cli.main(["report", str(tmp_path / f"{REPORT.stem}.md")]) == 0
    path = tmp_path / f"{REPORT.stem}.html"
    assert capsys.readouterr().out == f"the page is {path} ({path.stat().st_size / 1e6:.1f} MB)\n"
    assert structure.check(path.read_text()).all("h1")[0].text == "Study: kernel size"


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str, shown: study.StudyPage) -> None:
    table = Table(("", text), [[text, text]])
    claim = study.ShownClaim("held", text, text, text, text, text, table, text)
    hostile = dataclasses.replace(
        shown,
        name=text,
        claims=(claim,),
        shared=text,
        arms=table,
        means=table,
        runs=table,
        controlled=text,
        vary=text,
        reading=(text,),
        facts=table,
        command=text,
    )
    assert len(parsed(hostile).all("script")) == len(parsed(shown).all("script"))
