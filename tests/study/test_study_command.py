"""`cnnjax study`: the project's studies and reports, its arguments, and a whole study."""

import json
import math
import pathlib
import shutil
from collections import Counter

import pytest

from cnnjax import cli, config_files
from cnnjax.errors import InputError
from cnnjax.runs.executors import EXECUTORS
from cnnjax.study import BUDGETS, report
from cnnjax.study.check import check_study
from cnnjax.study.record import HELD, REFUTED, UNDECIDED, ClaimReport, read_report
from cnnjax.study.verdict import judge_claim
from tests.runs.fakes import FakeExecutor, fails
from tests.study.test_sequence import Tabled

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUDIES = [path for path in sorted((ROOT / "experiments").glob("*.py")) if "def get_study" in path.read_text()]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_consistent(path: pathlib.Path, budget: str) -> None:
    study = config_files.read_study(str(path), budget)
    check_study(study)
    assert {arm for panel in study.panels for arm in panel.arms} <= set(study.arms)
    assert path.stem in (path.read_text().split('"""')[1])  # its command


def test_an_arm_of_a_study_is_a_config_that_commands_take_by_name() -> None:
    arm = config_files.read_config(f"{ROOT}/experiments/degradation.py:plain-56", ["--config.lr=0.3"])
    assert (arm.model, arm.lr) == ("cifar_plain56", 0.3)
    with pytest.raises(InputError, match="unknown argument 'plain-57'; did you mean 'plain-56'"):
        config_files.read_config(f"{ROOT}/experiments/degradation.py:plain-57")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "reports").glob("*.csv")), ids=lambda path: path.stem)
def test_every_report_agrees_with_its_study(path: pathlib.Path) -> None:
    """The verdicts on the page and in the record follow from the numbers in the CSV file."""
    name, _, budget = path.stem.rpartition("-")
    study = config_files.read_study(str(ROOT / "experiments" / f"{name}.py"), budget)
    record = read_report(path.with_suffix(".json"))
    assert (record.study, record.budget) == (name, budget)
    claims = report.judge_study(study, report.read_values(path, study), record.plan)
    assert [_summary(claim) for claim in claims] == [_summary(claim) for claim in record.claims]
    page = path.with_suffix(".md").read_text()
    assert all(f"\n## {claim.name}\n\n**{claim.headline}**\n" in page for claim in record.claims)
    assert path.with_suffix(".png").exists()


def _summary(claim: ClaimReport) -> tuple[object, ...]:
    """Returns what does not depend on the last bits of the numbers, nor on words."""
    return claim.name, claim.verdict, claim.seeds, [finding.verdict for finding in claim.findings], claim.changes


@pytest.mark.parametrize(("error", "saved", "expected"), [
    (0.30, 0.2, HELD), (0.30, 0.1, REFUTED), (0.06, 0.2, HELD), (0.06, 0.1, REFUTED),
])  # fmt: skip
def test_a_seventh_of_the_errors_is_judged_at_any_error(error: float, saved: float, expected: str) -> None:
    study = config_files.read_study(str(ROOT / "experiments" / "ensembles.py"), "full")
    (claim,) = [claim for claim in study.claims if claim.name == "ensembles_save_a_seventh_of_errors"]
    one = [error * (1 + i / 1000) for i in range(study.seeds)]
    errors = {"ensemble of 1": one, "ensemble of 7": [(1 - saved) * x - i % 2 / 10_000 for i, x in enumerate(one)]}
    values = {
        arm: {"log_error": [math.log(x) for x in numbers], "ensemble/accuracy": [1 - x for x in numbers]}
        for arm, numbers in errors.items()
    }
    assert judge_claim(claim, values, (study.seeds,))[0] == expected


def test_the_names_of_claims_are_unique() -> None:
    claims = [claim for path in STUDIES for claim in config_files.read_study(str(path), "full").claims]
    facts = [fact for path in (ROOT / "experiments").glob("*.py") for fact in config_files.read_facts(str(path))]
    names = Counter(claim.name for claim in (*claims, *facts))
    assert {name for name, count in names.items() if count > 1} == set()


FILE = """
from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

def measure(folder, data_dir):
    from cnnjax.study import measure
    shifted = measure.accuracy(folder, data_dir, "shift(1, 0)")
    return measure.flow(folder, data_dir) | {"parameters": measure.parameters(folder), "shifted": shifted}

def get_study(budget):
    arms = {f"deep {name}": Config(model=f"mlp(features=(16, 16, 16), activation='{name}')", duration="2 epochs")
            for name in ("sigmoid", "relu")}
    comparisons = (Comparison("deep relu", "higher", "deep sigmoid", "log_ratio_start"),)
    claim = Claim("it_learns", "depth", "It learns.", "Nobody.", comparisons)
    return Study(arms=arms, seeds=1, measure=measure, claims=(claim,),
                 metrics={"log_ratio_start": "ratio", "dead_end": "dead", "parameters": "n", "shifted": "shifted"},
                 panels=(Panel("profile", "gradient_end", "gradient"),))
"""


@pytest.mark.slow
def test_a_study_from_the_command_line(
    digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # in the runs
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for missing in (2, 0):
        assert cli.main(["study", "mine.py", "--workers=2", f"--data_dir={digits_dir}"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert f"{missing} of 2 runs to do, 2 in parallel" in captured.out
        assert "the report is reports/mine-quick.md" in captured.out
    measured = json.loads(next(tmp_path.glob("runs/studies/mine/deep sigmoid-*/seed0/measured.json")).read_text())
    assert measured["parameters"] == 64 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 10 + 10
    assert len(measured["gradient_start"]) == 4
    assert measured["log_ratio_start"] == pytest.approx(
        math.log10(measured["gradient_start"][0] / measured["gradient_start"][-1])
    )
    assert 0 <= measured["dead_end"] <= 1


SHORT = """
from cnnjax.study import Panel
from tests.study.test_sequence import case

def get_study(budget):
    return case(max_seeds=MAX, panels=(Panel("points", "test/accuracy", "accuracy"),))
"""


def test_the_plan_is_written_first_and_a_killed_study_goes_on(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(SHORT.replace("MAX", "8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw", lambda *_: None)  # takes most of the time
    record = tmp_path / "reports" / "mine-quick.json"

    def study(most: int, *flags: str, status: int = 0) -> int:
        """Runs the command until it has begun `most` runs; returns their number."""
        start = Tabled(most)
        monkeypatch.setitem(EXECUTORS, "local", lambda workers: start)
        assert cli.main(["study", "mine.py", *flags]) == status
        return len(start.folders)

    study(7, status=130)
    planned = read_report(record)
    assert (planned.claims, planned.plan.max_seeds, planned.plan.runs) == ((), 8, 0)
    assert study(0, "--report_only") == 0
    assert [claim.verdict for claim in read_report(record).claims] == [UNDECIDED, UNDECIDED]
    assert study(99) == 19 - 7
    judged = read_report(record)
    assert [(claim.verdict, claim.seeds, claim.changes) for claim in judged.claims] == [
        (HELD, 3, ()),
        (UNDECIDED, 8, ()),
    ]
    assert (judged.plan, judged.hours, judged.versions["jax"]) == (planned.plan, 0.19, "1")
    assert judged.machine == "processor 0, processor 1; each run on a device"
    files = [record.with_suffix(suffix) for suffix in (".csv", ".json", ".png")]
    before = [file.read_bytes() for file in files if file.exists()]
    folder = tmp_path / "runs" / "studies" / "mine"
    folder.rename(tmp_path / "elsewhere")  # another machine has the report, and not the runs
    record.with_suffix(".md").write_text("old words")
    assert study(0, "--report_only") == 0
    assert record.with_suffix(".md").read_text().startswith("# mine, quick budget")
    assert [file.read_bytes() for file in files if file.exists()] == before
    shutil.rmtree(folder)
    (tmp_path / "elsewhere").rename(folder)
    (tmp_path / "mine.py").write_text(SHORT.replace("MAX", "3"))  # after the fact
    assert study(0) == 0
    assert "*Plan.* The plan had 3 to 8 seeds; now it has 3 to 3." in record.with_suffix(".md").read_text()
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_study_named_by_name_alone_has_its_plan_and_its_report_beside_its_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(SHORT.replace("MAX", "8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw", lambda *_: None)
    for name, most, status in (("experiments/mine.py", 0, 130), ("mine", 99, 0)):
        monkeypatch.setitem(EXECUTORS, "local", lambda workers, most=most: Tabled(most))
        assert cli.main(["study", name]) == status
    assert "the report is experiments/reports/mine-quick.md" in capsys.readouterr().out
    assert [claim.verdict for claim in read_report(tmp_path / "experiments/reports/mine-quick.json").claims] == [
        HELD,
        UNDECIDED,
    ]
    assert not (tmp_path / "reports").exists()


def test_no_report_without_runs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(SHORT.replace("MAX", "8"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "mine.py", "--report_only"]) == 1
    assert (
        capsys.readouterr().err == "error: no run of mine is complete, so there is no report; leave out --report_only\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "the following arguments are required: FILE"),
        (["experiments/degradatoin.py"], 1, "did you mean 'degradation'?"),
        (["configs/digits_lenet5.py"], 1, "configs/digits_lenet5.py gives no study: it has no get_study(budget)"),
        (["experiments/degradation.py", "--budget=quik"], 1, "--budget=quik: did you mean 'quick'?"),
        (["experiments/degradation.py", "--workers=0"], 1, "--workers=0: expected at least 1"),
        (["experiments/degradation.py", "--seeds=3"], 2, "unknown flag '--seeds=3'"),
    ],
)
def test_wrong_arguments_are_one_line_errors(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        returned = cli.main(["study", *arguments])
    except SystemExit as exception:
        returned = exception.code
    error = capsys.readouterr().err
    assert (returned, error.count("\n")) == (status, 1)
    assert message in error


def test_a_study_whose_runs_all_fail_ends_with_one_line_and_a_second_one_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    errors: list[str] = []

    def fails_after_a_second_study(folder: pathlib.Path) -> int:
        if not errors:
            assert cli.main(["study", "mine.py"]) == 1
            errors.append(capsys.readouterr().err)
        return fails(folder)

    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(fails_after_a_second_study))
    assert cli.main(["study", "mine.py"]) == 1
    error = capsys.readouterr().err
    assert errors == ["error: runs/studies/mine is in use: another study is running in it\n"]
    assert error.startswith("error: 2 of 2 runs failed, so there is no report. runs/studies/mine/deep sigmoid-")
    assert error.endswith("/seed0: exit status 1, error: it was wrong\n")
