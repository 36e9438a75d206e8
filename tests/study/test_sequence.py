"""Looks: seeds are added to the arms of undecided claims, and to no others; a plan that was changed is noted."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs import supervise, workdir
from cnnjax.runs.executors import Job
from cnnjax.study import Comparison, Study, conduct, plan, sequence
from cnnjax.study.record import HELD, UNDECIDED, ClaimReport, StudyReport, read_report, write_report
from cnnjax.study.verdict import judge_claim, looks
from tests.study.test_conduct import CONFIG, Instant, claim, study

ACCURACY = {  # learning rate -> accuracy of each seed
    0.1: [0.30, 0.32, 0.31, 0.30, 0.33, 0.32, 0.31, 0.30],
    0.2: [0.70, 0.73, 0.71, 0.72, 0.70, 0.74, 0.73, 0.71],
    0.3: [0.50, 0.00, 0.60, 0.50, 0.51, 0.55, 0.56, 0.52],
}


@pytest.fixture(autouse=True)
def poll_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.0)


def arm(lr: float) -> Config:
    return dataclasses.replace(CONFIG, lr=lr)


def case(**changes: Any) -> Study:
    """Returns a study whose first claim is decided with 3 seeds, and whose second is not with 8."""
    claims = (
        claim(name="clear", comparisons=(Comparison("good", "higher", "bad", "test/accuracy"),)),
        claim(name="noisy", comparisons=(Comparison("noisy", "higher", "bad", "test/accuracy"),)),
    )
    plain: dict[str, Any] = {
        "arms": {"bad": arm(0.1), "good": arm(0.2), "noisy": arm(0.3)},
        "claims": claims, "max_seeds": 8, "measure": None, "metrics": {"test/accuracy": "accuracy"},
    }  # fmt: skip
    return study(**plain | changes)


class Tabled(Instant):
    """An executor whose runs have the accuracies of `ACCURACY`, and which is stopped after some of them."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.most = most

    def __call__(self, command: list[str], log: pathlib.Path) -> Job:
        if len(self.folders) == self.most:
            raise KeyboardInterrupt
        self.folders.append(log.parent)
        config = json.loads((log.parent / "config.json").read_text())
        line = {"step": 2, "epoch": 2, "test/accuracy": ACCURACY[config["lr"]][config["seed"]]}
        (log.parent / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        workdir.write_json(log.parent / "result.json", {"seconds": 36.0})
        processor = f"processor {config['seed'] % 2}"
        versions = {"python": "3", "jax": "1", "flax": "2", "optax": "4", "devices": "a device", "processor": processor}
        workdir.write_json(log.parent / "versions.json", versions)
        return Job(lambda: 0, lambda hard: None)


def play(root: pathlib.Path, this: Study, start: Instant) -> dict[str, int]:
    """Runs a study; returns the number of runs of each arm."""

    def runs_of(seeds: Mapping[str, int]) -> sequence.Runs:
        return conduct.all_runs(root, this, "", seeds)

    def train(runs: sequence.Runs) -> list[str]:
        return conduct.conduct(runs, start, workers=1, stall_timeout=60, log=lambda line: None)

    runs, results = sequence.run_looks(this, runs_of, train, log=lambda line: None)
    assert {a: len(r) for a, r in results.items()} == {a: len(r) for a, r in runs.items()}
    return {name: len(arm_runs) for name, arm_runs in runs.items()}


def test_seeds_are_added_to_the_arms_of_undecided_claims_alone(tmp_path: pathlib.Path) -> None:
    start = Tabled()
    assert play(tmp_path, case(), start) == {"bad": 8, "good": 3, "noisy": 8}
    assert len(start.folders) == 19
    assert play(tmp_path, case(), again := Tabled()) == {"bad": 8, "good": 3, "noisy": 8}
    assert again.folders == []
    assert play(tmp_path, case(max_seeds=0), Tabled()) == {"bad": 3, "good": 3, "noisy": 3}


def test_a_decided_part_of_an_undecided_claim_gets_no_more_seeds(tmp_path: pathlib.Path) -> None:
    comparisons = tuple(comparison for one in case().claims for comparison in one.comparisons)
    assert play(tmp_path, case(claims=(claim(comparisons=comparisons),)), Tabled()) == {"bad": 8, "good": 3, "noisy": 8}


@pytest.mark.parametrize("most", [0, 4, 9, 11, 18])
def test_a_study_that_was_killed_goes_on_with_the_same_looks(most: int, tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, case(), Tabled(most))
    assert play(tmp_path, case(), rest := Tabled()) == {"bad": 8, "good": 3, "noisy": 8}
    assert len(rest.folders) == 19 - most


def test_an_arm_gets_the_seeds_of_those_that_start_from_it(tmp_path: pathlib.Path) -> None:
    this = case(starts={"noisy": "good"})
    assert play(tmp_path, this, Tabled()) == {"bad": 8, "good": 8, "noisy": 8}


def test_claims_are_judged_with_the_runs_that_are_complete(tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, case(), Tabled(8))  # all but the last arm's third seed
    runs = sequence.complete_runs(tmp_path, case(), "")
    assert {name: len(arm_runs) for name, arm_runs in runs.items()} == {"bad": 3, "good": 3, "noisy": 2}
    results = {name: [conduct.collect(run, case(), pytest.fail) for run in arm_runs] for name, arm_runs in runs.items()}
    values = sequence.values_of(case(), results)
    verdicts = [judge_claim(one, values, looks(3, 8)) for one in case().claims]
    assert [verdict for verdict, _ in verdicts] == [HELD, UNDECIDED]
    assert verdicts[1][1][0].seeds == 0  # its first look is not complete


def test_a_failed_run_ends_the_study(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"3 of 9 runs failed, so there is no report. .*good"):
        play(tmp_path, case(), Instant("good"))


def test_the_plan_counts_that_was_written_before_the_first_run(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "reports" / "mine-quick.json"
    first = plan.register(path, case(), "quick", runs=0)
    assert (first.seeds, first.max_seeds, first.arms["bad"]) == (3, 8, conduct.config_digest(arm(0.1)))
    assert read_report(path).plan == first
    assert read_report(path).study == "mine"
    other = case(max_seeds=12)
    assert plan.register(path, other, "quick", runs=0).max_seeds == 12  # nothing is known yet
    assert plan.register(path, case(), "quick", runs=1).max_seeds == 12  # too late
    assert plan.changes(read_report(path).plan, plan.make_plan(other), "clear") == ()


def compared(margin: float) -> tuple[Any, ...]:
    return (claim(name="clear", comparisons=(Comparison("good", "higher", "bad", "test/accuracy", margin),)),)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_seeds": 20}, ["The plan had 3 to 8 seeds; now it has 3 to 20."]),
        ({"claims": compared(0.1)}, ["The plan expected: test/accuracy of good higher, against bad."]),
        ({"claims": (claim(name="clear", statement="Other words."),)}, ["The plan expected: "]),
        ({"arms": {"bad": arm(0.1), "good": arm(0.3), "noisy": arm(0.3)}}, ["The config of good is another one than"]),
        ({"arms": {"bad": arm(0.1), "good": arm(0.2), "noisy": arm(0.1)}}, []),  # not an arm of this claim
        ({"starts": {"good": "noisy"}}, ["The config of good is another one than planned."]),
        ({"remarks": "More words.", "vary": "Vary."}, []),
    ],
)
def test_a_plan_that_was_changed_is_noted(changed: dict[str, Any], said: list[str]) -> None:
    found = plan.changes(plan.make_plan(case()), plan.make_plan(case(**changed)), "clear")
    assert len(found) == len(said)
    assert all(sentence.startswith(expected) for sentence, expected in zip(found, said, strict=True))


def test_a_claim_that_was_added_and_a_plan_that_came_late_are_noted() -> None:
    now = plan.make_plan(case())
    first = plan.make_plan(case(claims=case().claims[:1]), runs=7)
    late = "The plan was written when 7 runs were complete, so the rate of false verdicts is not assured."
    assert plan.changes(first, now, "clear") == (late,)
    assert plan.changes(first, now, "noisy") == (late, "The claim was added after the first run.")


def test_a_damaged_plan_stops_the_study(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine-quick.json").write_text("{")
    with pytest.raises(InputError, match=r"mine-quick.json is damaged"):
        plan.register(tmp_path / "mine-quick.json", case(), "quick", runs=0)


def test_a_plan_with_verdicts_is_kept_even_if_the_runs_are_gone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine-quick.json"
    first = plan.register(path, case(), "quick", runs=0)
    judged = dataclasses.replace(read_report(path), claims=(_verdict(),))
    write_report(path, judged)
    assert plan.register(path, case(max_seeds=20), "quick", runs=0) == first


def _verdict() -> ClaimReport:
    return ClaimReport("clear", "training", "Good is better.", "nobody", HELD, "Held: it is.", (), seeds=3)


def test_the_record_is_as_it_was_written(tmp_path: pathlib.Path) -> None:
    report = StudyReport("a", "quick", "", "", {}, 0.0, plan.make_plan(case()), (_verdict(),))
    write_report(tmp_path / "a-quick.json", report)
    assert read_report(tmp_path / "a-quick.json") == report
