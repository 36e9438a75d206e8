"""The record of a study as a JSON file beside its report: the plan, written before the first run, and the verdicts."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from cnnjax import sealed
from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.study import Comparison

HELD, EQUAL, CONTRADICTED, REFUTED, UNDECIDED = VERDICTS = ("held", "equal", "contradicted", "refuted", "undecided")


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one comparison.

    Attributes:
        comparison: what was expected.
        difference: mean over the seeds of the value of arm `a` minus that of arm `b`; nan without seeds in common.
        low: lower bound of the difference's confidence interval, adjusted to looks and parts; -inf if unknown.
        high: upper bound; inf if unknown.
        level: of this interval: 0.95, or 0.9 for 'equal', whose verdict is that of two one-sided tests.
        effect: the difference in units of the standard deviation of the paired differences; nan without one.
        seeds: number of paired runs that it is computed from.
        verdict: one of `VERDICTS`.
        needed: for UNDECIDED, an estimate of the seeds that would decide it; 0 if there is none.
        percentage: whether the metric is a fraction that is shown as a percentage.
    """

    comparison: Comparison
    difference: float
    low: float
    high: float
    level: float
    effect: float
    seeds: int
    verdict: str
    needed: int = 0
    percentage: bool = False


@dataclasses.dataclass(frozen=True)
class ClaimReport:
    """The verdict on a claim.

    Attributes:
        name: its name, chapter, statement and source, as in `cnnjax.study.Claim`.
        chapter: see `name`.
        statement: see `name`.
        source: see `name`.
        verdict: one of `VERDICTS`.
        headline: the verdict in a sentence, with effect and interval: 'Held: plain-56 has a training loss ...'.
        findings: one for each comparison of the claim.
        seeds: the largest number of seeds in any finding.
        needed: for UNDECIDED, an estimate of the seeds that would decide it; 0 if there is none.
        changes: what was changed in the claim's plan after the first run, a sentence each.
    """

    name: str
    chapter: str
    statement: str
    source: str
    verdict: str
    headline: str
    findings: tuple[Finding, ...]
    seeds: int
    needed: int = 0
    changes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds what decides the claims of a study, fixed before its first run.

    Attributes:
        written: date of the plan, as in '2026-11-23'.
        rule: the tests, error rates and looks in words.
        seeds: number of seeds before the first verdicts.
        max_seeds: largest number of seeds.
        arms: arm -> digest of its config.
        claims: name of a claim -> its comparisons.
        runs: number of runs that were complete when the plan was written: 0 for a plan made before the first run.
    """

    written: str
    rule: str
    seeds: int
    max_seeds: int
    arms: Mapping[str, str]
    claims: Mapping[str, tuple[Comparison, ...]]
    runs: int = 0


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """The record of a study: experiments/reports/NAME-BUDGET.json.

    Attributes:
        study: name of the study's file, without '.py'.
        budget: 'quick', 'standard' or 'full'.
        date: of the verdicts, as in '2026-11-23'; '' before.
        machine: processors and devices of the runs; '' before the verdicts.
        versions: package -> version, or versions, in the runs.
        hours: total hours of training of the runs; 0 if unknown.
        plan: what decides the claims.
        claims: the verdicts; () before.
    """

    study: str
    budget: str
    date: str
    machine: str
    versions: Mapping[str, str]
    hours: float
    plan: Plan
    claims: tuple[ClaimReport, ...] = ()


def write_report(path: pathlib.Path, report: StudyReport) -> None:
    """Writes a study's record. Unknown bounds and effects are null in the file."""
    text = json.dumps(sealed.finite(dataclasses.asdict(report)), indent=1, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_atomically(path, f"{text}\n".encode(errors="surrogateescape"))


def read_report(path: pathlib.Path) -> StudyReport:
    """Reads what `write_report` wrote. Raises InputError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(errors="surrogateescape"))
        plan = content["plan"]
        claims = {name: _comparisons(rows) for name, rows in plan["claims"].items()}
        reports = tuple(_claim_report(claim) for claim in content["claims"])
        changed: dict[str, Any] = {"plan": Plan(**plan | {"claims": claims}), "claims": reports}
        return StudyReport(**content | changed)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and `cnnjax study` rewrites it") from error


def _comparisons(rows: list[dict[str, Any]]) -> tuple[Comparison, ...]:
    """Returns the comparisons of a claim in a plan."""
    return tuple(Comparison(**row) for row in rows)


def _claim_report(content: dict[str, Any]) -> ClaimReport:
    """Returns the verdict on a claim from its part of a file."""
    tuples: dict[str, Any] = {
        "findings": tuple(_finding(row) for row in content["findings"]),
        "changes": tuple(content["changes"]),
    }
    return ClaimReport(**content | tuples)


def _finding(row: dict[str, Any]) -> Finding:
    """Returns a finding from its part of a file, with the numbers that JSON does not have."""
    unknown = {"low": -math.inf, "high": math.inf, "effect": math.nan, "difference": math.nan}
    numbers: dict[str, Any] = {name: value if row[name] is None else row[name] for name, value in unknown.items()}
    numbers["comparison"] = Comparison(**row["comparison"])
    return Finding(**row | numbers)
