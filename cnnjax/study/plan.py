"""The plan of a study: written before the first run, and compared with what is judged at the end."""

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence

from cnnjax.study import Comparison, Study
from cnnjax.study.conduct import config_digest
from cnnjax.study.record import Plan, StudyReport, read_report, write_report
from cnnjax.study.verdict import ERROR, looks
from cnnjax.study.words import expectation, is_fraction


def make_plan(study: Study, runs: int = 0) -> Plan:
    """Returns the plan of a study, as of today. `runs` is the number of its runs that are complete by now."""
    schedule = ", ".join(map(str, looks(study.seeds, study.max_seeds)))
    rule = (
        f"paired t-tests at {schedule} seeds; at most {2 * ERROR:.0%} false verdicts, spent in proportion to the seeds;"
        " Holm's correction over the parts of a claim"
    )
    digests = {arm: config_digest(config) for arm, config in study.arms.items()}
    return Plan(
        written=datetime.date.today().isoformat(),
        rule=rule,
        seeds=study.seeds,
        max_seeds=max(study.seeds, study.max_seeds),
        arms={arm: " after ".join([digests[arm], *_start(study, digests, arm)]) for arm in study.arms},
        claims={claim.name: claim.comparisons for claim in study.claims},
        runs=runs,
    )


def _start(study: Study, digests: Mapping[str, str], arm: str) -> list[str]:
    """Returns the digest of the arm that an arm starts from, in a list; [] if it is trained from scratch."""
    return [digests[study.starts[arm]]] if arm in study.starts else []


def register(path: pathlib.Path, study: Study, budget: str, runs: int) -> Plan:
    """Writes a study's plan to its record `path`, unless there is one. Returns the plan that counts.

    A plan is replaced by another one only as long as none of the study's runs is complete. `runs` is the number of
    those that are. Raises InputError if the file is damaged.
    """
    now = make_plan(study, runs)
    if path.exists():
        report = read_report(path)
        if runs or report.claims or is_same(report.plan, now):
            return report.plan
    name = path.stem.removesuffix(f"-{budget}")
    write_report(path, StudyReport(name, budget, date="", machine="", versions={}, hours=0.0, plan=now))
    return now


def is_same(first: Plan, now: Plan) -> bool:
    """Returns whether two plans decide the same by the same rule, whenever they were written."""
    return dataclasses.replace(first, written=now.written, runs=now.runs) == now


def changes(first: Plan, now: Plan, claim: str, fractions: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns what is different in the plan of one claim, a sentence each; () if it is as it was planned.

    `fractions` is that of the study.
    """
    found = []
    if first.runs:
        found.append(
            f"The plan was written when {first.runs} runs were complete, so the rate of false verdicts is not assured."
        )
    if (first.seeds, first.max_seeds) != (now.seeds, now.max_seeds):
        found.append(
            f"The plan had {first.seeds} to {first.max_seeds} seeds; now it has {now.seeds} to {now.max_seeds}."
        )
    elif first.rule != now.rule:
        found.append(f"The rule of the plan was: {first.rule}.")
    if claim not in first.claims:
        return (*found, "The claim was added after the first run.")
    if first.claims[claim] != now.claims[claim]:
        found.append(f"The plan expected: {_in_words(first.claims[claim], fractions)}.")
    arms = dict.fromkeys(arm for c in now.claims[claim] for arm in (c.a, c.b))
    changed = [arm for arm in arms if arm in first.arms and first.arms[arm] != now.arms[arm]]
    found += [f"The config of {arm} is another one than planned." for arm in changed]
    return tuple(found)


def _in_words(comparisons: Sequence[Comparison], fractions: Sequence[str]) -> str:
    """Returns what comparisons expect, in a line. `fractions` is that of the study."""
    return "; ".join(
        f"{c.metric} of {c.a} {expectation(c, is_fraction(c.metric, fractions))}, against {c.b}" for c in comparisons
    )
