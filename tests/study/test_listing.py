"""The list of claims: verdicts by the best report, its formats, its errors, and the page of experiments/."""

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from cnnjax import cli, config_files
from cnnjax.errors import InputError
from cnnjax.study import CHAPTERS, listing, words
from cnnjax.study.record import VERDICTS, read_report

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
STUDY = """
from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

def get_study(budget):
    comparisons = (Comparison("wide", "higher", "narrow", "test/accuracy"),)
    claims = tuple(Claim(name, "depth", f"The claim\\n{name}.", "Nobody.", comparisons) for name in ("wider", "better"))
    return Study(arms={"wide": Config(), "narrow": Config()}, metrics={"test/accuracy": "accuracy"}, claims=claims,
                 panels=(Panel("curve", "val/loss", "loss"),), seeds=3)
"""
FACTS = """
from cnnjax.study.facts import Fact, Number

def get_facts():
    return [Fact("one", "padding", "One is | two.", "Nobody.", [Number("one", 1, 2)], lambda: {"one": 1}, "It is one.")]
"""


@pytest.fixture
def experiments(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder with a study and a file of facts in ./experiments, without those of the package."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "widths.py").write_text(STUDY)
    (folder / "ones.py").write_text(FACTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_files, "bundled_files", lambda kind: [])
    return folder


def write_report(experiments: pathlib.Path, budget: str, **verdicts: str) -> None:
    """Writes the record of the study 'widths': the verdicts on its claims, from a record of the project."""
    record = json.loads((EXPERIMENTS / "reports" / "degradation-quick.json").read_text())
    (claim, *_), record["budget"] = record["claims"], budget
    record["claims"] = [
        claim | {"name": name, "verdict": verdict, "headline": f"{verdict.capitalize()}: it is so: {budget}."}
        for name, verdict in verdicts.items()
    ]
    (experiments / "reports").mkdir(exist_ok=True)
    (experiments / "reports" / f"widths-{budget}.json").write_text(json.dumps(record))


def entries(experiments: pathlib.Path) -> dict[str, tuple[str, str, str]]:
    found = listing.read_entries(sorted(experiments.glob("*.py")))
    return {entry.claim.name: (entry.verdict, entry.finding, entry.evidence) for entry in found}


def test_a_claim_has_the_verdict_of_its_largest_budget(experiments: pathlib.Path) -> None:
    missing = (listing.NO_REPORT, "", "")
    assert entries(experiments) == {"one": missing, "wider": missing, "better": missing}  # in the order of the chapters
    write_report(experiments, "standard")  # a plan without verdicts yet
    write_report(experiments, "quick", wider="undecided", better="held")
    quick = ("undecided", "It is so: quick.", "quick, 3 seeds")
    assert entries(experiments) == {"one": missing, "wider": quick, "better": ("held", *quick[1:])}
    write_report(experiments, "standard", wider="contradicted")
    standard = ("contradicted", "It is so: standard.", "standard, 3 seeds")
    assert entries(experiments) == {"one": missing, "wider": standard, "better": ("held", *quick[1:])}
    assert cli.main(["study", "experiments/ones.py"]) == 0
    assert entries(experiments)["one"] == ("refuted", "It is one.", "exact")


def test_the_list_as_text_markdown_and_csv(experiments: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(experiments, "quick", wider="contradicted")
    assert cli.main(["study", "experiments/ones.py"]) == 0
    capsys.readouterr()
    assert cli.main(["study", "--list"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("3 claims: 1 contradicted, 1 refuted, 1 no report yet ")
    assert all(word in text for word in ("padding", "One is | two.", "The claim wider.", "quick, 3 seeds", "exact"))
    assert cli.main(["study", "--list", "--markdown"]) == 0
    head, _, tables = capsys.readouterr().out.partition("\n## Padding\n")
    assert head.startswith(f"{listing.HEAD}\n\n3 claims, by verdict:\n\n| verdict | claims | meaning |\n")
    assert head.endswith(f"\n{listing.LEGEND}\n")
    rows = [line.split(" | ")[:2] for line in head.splitlines() if line.startswith("| ")]
    assert rows[2:] == [["| **contradicted**", "1"], ["| **refuted**", "1"], ["| no report yet", "1"]]
    assert "\n- [Depth](#depth), 2 claims: 1 contradicted, 1 no report yet.\n" in head
    assert tables.splitlines() == [
        "",
        "| claim | verdict | finding | evidence |",
        "| --- | --- | --- | --- |",
        "| [One is \\| two.](reports/ones.md) | **refuted** | It is one. | exact |",
        "",
        "## Depth",
        "",
        "| claim | verdict | finding | evidence |",
        "| --- | --- | --- | --- |",
        "| [The claim wider.](reports/widths-quick.md) | **contradicted** | It is so: quick. | quick, 3 seeds |",
        "| [The claim better.](widths.py) | no report yet |  |  |",
    ]
    assert cli.main(["study", "--list", "--csv", "wid*"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["claim"], row["verdict"], row["seeds"]) for row in rows] == [
        ("wider", "contradicted", "3"),
        ("better", "", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--list", "paddin"], 0, ""),
        (["--list", "pooling"], 1, "unknown claim 'pooling'; valid: better, depth, one, ones, padding, wider, widths"),
        (["--list", "widht"], 1, "did you mean 'widths'?"),
        (["--list=widths"], 2, "ignored explicit argument 'widths'"),
        (["--list", "a", "b"], 2, "unexpected argument 'b'"),
        (["--lists"], 2, "unknown flag '--lists'; did you mean '--list'?"),
        (["--csv"], 2, "--csv prints the list of claims: give --list as well"),
        (["--markdown", "widths"], 2, "--markdown prints the list of claims: give --list as well"),
        (["--list", "--csv", "--markdown"], 2, "not allowed with argument"),
    ],
)
def test_wrong_arguments_are_one_line_errors(
    arguments: list[str], status: int, message: str, experiments: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = cli.main(["study", *arguments])
    except SystemExit as exception:
        returned = exception.code
    error = capsys.readouterr().err
    assert (returned, error.count("\n")) == (status, int(bool(status)))
    assert message in error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("widths.py", "get_study = 3", "widths.py gives no study: TypeError"),
        ("ones.py", "import nothing_such", "ones.py gives no study: ModuleNotFoundError"),
        ("ones.py", "x = 1", "ones.py gives no study: it has no get_study(budget)"),
        ("reports/ones.json", "{", "ones.json is damaged"),
        ("reports/widths-full.json", "{}", "widths-full.json is damaged"),
    ],
)
def test_a_broken_file_is_named(
    name: str, text: str, message: str, experiments: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (experiments / "reports").mkdir()
    (experiments / name).write_text(text)
    assert cli.main(["study", "--list"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_outside_of_a_checkout_the_list_is_that_of_the_package(
    experiments: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = shutil.move(experiments, tmp_path / "share")
    assert cli.main(["study", "--list"]) == 1
    error = capsys.readouterr().err
    assert error == "error: there are no studies in ./experiments, and none came with the package\n"
    monkeypatch.setattr(config_files, "bundled_files", lambda kind: sorted(pathlib.Path(installed).glob("*.py")))
    write_report(pathlib.Path(installed), "quick", wider="held")
    assert cli.main(["study", "--list"]) == 0
    assert capsys.readouterr().out.startswith("3 claims: 1 held, 2 no report yet ")


def test_the_page_of_claims_is_up_to_date(tmp_path: pathlib.Path) -> None:
    """It is what the command on it prints, from any folder."""
    page = (EXPERIMENTS / "claims.md").read_text()
    command = [sys.executable, "-m", "cnnjax", "study", "--list", "--markdown"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert page.splitlines() == done.stdout.splitlines(), f"bring the page up to date: {listing.UPDATE}"
    assert listing.UPDATE in page
    titles = [line[3:].lower() for line in page.splitlines() if line.startswith("## ")][2:]
    assert titles == [chapter for chapter in CHAPTERS if chapter in titles]


def test_every_link_of_the_page_leads_to_a_file() -> None:
    lines = (EXPERIMENTS / "claims.md").read_text().splitlines()
    targets = {line.partition("](")[2].partition(")")[0] for line in lines if line.startswith("| [")}
    assert targets
    assert [target for target in targets if not (EXPERIMENTS / target).is_file()] == []


def test_the_readme_has_all_verdicts_all_chapters_and_the_command() -> None:
    page = (EXPERIMENTS / "README.md").read_text()
    assert f"\n{listing.UPDATE}\n" in page
    assert all(f"*{verdict}*" in page for verdict in VERDICTS)
    groups = listing.by_chapter(listing.read_entries(sorted(EXPERIMENTS.glob("*.py"))))
    links = re.findall(r"\[(\w+)\]\(claims\.md#(\w+)\)[^(]* \((\d+)\)", page)
    assert links == [(chapter, chapter, str(len(group))) for chapter, group in groups.items()]


FINDINGS = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^$)", (EXPERIMENTS / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def numbers(text: str) -> set[str]:
    """The numbers of a text, without those in the targets of its links."""
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r"\]\(\S+?\)", "", text)))


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.partition("**")[2].partition(".")[0])
def test_a_finding_of_the_readme_has_the_numbers_of_its_report(finding: str) -> None:
    text = " ".join(finding.split())
    (target,) = re.findall(r"\[report\]\((\S+)\.md\)", text)
    path = EXPERIMENTS / f"{target}.json"
    assert numbers(text) <= numbers(path.with_suffix(".md").read_text())
    if not path.stem.startswith("arithmetic_"):
        found = [finding for claim in read_report(path).claims for finding in claim.findings]
        quoted = [(words.amount(each, abs(each.difference)), words.evidence(each).split("; ")[0]) for each in found]
        assert [pair for pair in quoted if all(part in text for part in pair)]


def test_the_readme_has_ten_findings() -> None:
    assert len(FINDINGS) == 10


def test_an_unknown_kind_of_file_is_refused(experiments: pathlib.Path) -> None:
    with pytest.raises(InputError, match="there is no study file"):
        listing.read_entries([experiments / "nothing.py"])
