"""Reports: the page, the rows, the figure and the record of a study."""

import dataclasses
import pathlib

import pytest

from cnnjax.errors import InputError
from cnnjax.study import Study, conduct, report
from cnnjax.study.page import page
from cnnjax.study.plan import make_plan
from cnnjax.study.record import HELD, StudyReport, read_report
from cnnjax.study.verdict import Values
from tests.study.test_conduct import Instant, run, study


def empty(case: Study) -> StudyReport:
    """Returns the record of a study before its verdicts."""
    return StudyReport("mine", "quick", "2026-11-29", "a machine", {"jax": "1.0"}, 1.5, make_plan(case))


def test_the_report_has_the_verdict_and_the_numbers(tmp_path: pathlib.Path) -> None:
    case = study(seeds=6, remarks="Something\nelse.", vary="Take another\nrate.")
    run(tmp_path / "runs", case, Instant())
    runs = conduct.all_runs(tmp_path / "runs", case, "")
    results = {arm: [conduct.collect(one, case, pytest.fail) for one in arm_runs] for arm, arm_runs in runs.items()}
    record = report.write(tmp_path / "out" / "mine-quick", case, results, empty(case), "the command")
    ((finding,),) = [claim.findings for claim in record.claims]
    assert finding.verdict == HELD
    assert finding.difference == pytest.approx(0.4)
    page = (tmp_path / "out" / "mine-quick.md").read_text()
    for line in (
        "# mine, quick budget",
        '**Held: the accuracy is 40 points higher with "fast" than with "slow" (the same in every seed; 6 seeds).**',
        "*Claim.* fast is better",
        "| accuracy | fast | slow | higher | 40 points | the same in every seed | unknown | 6 | held |",
        "| slow | 0.125 ± 0.019 | ",
        "| fast | 0.525 ± 0.019 | ",
        "![mine-quick](mine-quick.png)",
        "Runs with the same seed",
        "`the command`",
        "Take another rate.",
        "- a machine; jax 1.0",
    ):
        assert any(text.startswith(line) for text in page.splitlines()), line
    rows = (tmp_path / "out" / "mine-quick.csv").read_text().splitlines()
    assert rows[0] == "arm,run,test/accuracy,depth"
    assert len(rows) == 13
    assert (tmp_path / "out" / "mine-quick.png").read_bytes()[:4] == b"\x89PNG"
    assert repr(read_report(tmp_path / "out" / "mine-quick.json")) == repr(record)  # nan is not equal to itself


def test_what_json_does_not_have_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    """A single run has neither an interval nor an effect."""
    case = study(seeds=1)
    values = {"slow": {"test/accuracy": [0.5], "depth": [1.0]}, "fast": {"test/accuracy": [0.6], "depth": [1.0]}}
    record = dataclasses.replace(empty(case), claims=report.judge_study(case, values, make_plan(case)))
    report.write_page(tmp_path / "mine-quick", case, values, record, "the command")
    assert "Infinity" not in (text := (tmp_path / "mine-quick.json").read_text())
    assert "NaN" not in text
    assert repr(read_report(tmp_path / "mine-quick.json")) == repr(record)  # nan is not equal to itself
    assert "(no interval; 1 seed)" in (tmp_path / "mine-quick.md").read_text()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"plan": {"claims": []}, "claims": 3}'])
def test_a_damaged_record_is_named(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine-quick.json").write_text(text)
    with pytest.raises(InputError, match=r"mine-quick.json is damaged .*; remove it, and `cnnjax study` rewr"):
        read_report(tmp_path / "mine-quick.json")


def test_rows_of_another_study_are_refused(tmp_path: pathlib.Path) -> None:
    case = study()
    report.write_values(tmp_path / "a.csv", case, {"slow, old": {"test/accuracy": [0.5], "depth": [1.0]}})
    with pytest.raises(InputError, match=r"a.csv belongs to another study"):
        report.read_values(tmp_path / "a.csv", case)


def test_the_page_shows_the_settings_that_arms_share_and_those_in_which_they_differ() -> None:
    arms = study().arms
    other = dataclasses.replace(arms["slow"], augment="pad_crop(4)|flip_lr", test_split="", seed=7)
    case = study(arms={"slow": arms["slow"], "fast": other}, starts={"fast": "slow"})
    values: Values = {"slow": {"test/accuracy": [0.5], "depth": [1.0]}, "fast": {"test/accuracy": [], "depth": []}}
    record = dataclasses.replace(empty(case), claims=report.judge_study(case, values, make_plan(case)))
    lines = page("mine-quick", case, record, values, "the command").splitlines()
    (shared,) = [line for line in lines if line.startswith("All arms: ")]
    assert shared.startswith(f"All arms: model `{other.model}`; ")
    assert "augment" not in shared
    header = next(i for i, line in enumerate(lines) if line.startswith("| arm | test_split | augment | starts from |"))
    assert "| fast |  |  | 0 |" in lines  # no run is complete
    assert lines[header + 3] == "| fast | none | `pad_crop(4)\\|flip_lr` | slow |"
