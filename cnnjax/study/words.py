"""Verdicts in plain words: the sentence at the top of a claim's report."""

import math
from collections.abc import Collection, Mapping, Sequence

from cnnjax.metrics import METRICS
from cnnjax.study import Comparison
from cnnjax.study.record import CONTRADICTED, EQUAL, HELD, REFUTED, UNDECIDED, Finding

ERRORS = ("test_error", "corruption_error", "ece")  # fractions, of `measure.table_row`
LARGEST_EFFECT = 100  # standard deviations; above it the deviation is too small to be measured by a few seeds


def headline(verdict: str, findings: Sequence[Finding], metrics: Mapping[str, str]) -> str:
    """Returns the verdict on a claim in a sentence or two, with the finding that matters most.

    That is the failed part of a claim that fails, the part that needs most seeds of an undecided one, and else the part
    with the smallest effect or, of parts that are equal, the largest difference. `metrics` is metric -> its name, as in
    `Study.metrics`.
    """
    by_verdict = {v: [f for f in findings if f.verdict == v] for v in (CONTRADICTED, REFUTED, UNDECIDED, HELD, EQUAL)}
    chosen, remark = list(findings), ""
    if verdict in (CONTRADICTED, REFUTED):
        chosen = by_verdict[CONTRADICTED] + by_verdict[REFUTED]
        finding = chosen[0]
    elif verdict == UNDECIDED:
        chosen = by_verdict[UNDECIDED]
        finding = max(chosen, key=_seeds_or_infinity)
    else:
        finding = min(findings, key=_strength)
        if len(findings) > 1:
            remark = ". The largest difference" if verdict == EQUAL else ". The smallest effect"
    others = [v for v, found in by_verdict.items() for f in found if f not in chosen]
    return f"{verdict.capitalize()}{_parts(len(chosen), others)}{remark}: {sentence(finding, metrics)}."


def _parts(some: int, others: Sequence[str]) -> str:
    """Returns ' in 1 of 2 parts (held in the other)', ' in both parts' or ' in all 3 parts'; '' for a single part.

    `some` is the number of parts with the verdict of the whole, `others` has the verdict of each other part.
    """
    count = some + len(others)
    if count == 1:
        return ""
    if not others:
        return " in both parts" if count == 2 else f" in all {count} parts"
    if len(others) == 1:
        return f" in {some} of {count} parts ({others[0]} in the other)"
    told = ", ".join(f"{verdict} in {others.count(verdict)}" for verdict in dict.fromkeys(others))
    return f" in {some} of {count} parts ({told})"


def _seeds_or_infinity(finding: Finding) -> float:
    """Returns the seeds that an undecided finding needs, as a sort key."""
    return finding.needed or math.inf


def _strength(finding: Finding) -> float:
    """Returns how far a finding is from the edge of its verdict, as a sort key: in standard deviations for most."""
    if finding.verdict == EQUAL:
        return 1 - abs(finding.difference) / finding.comparison.margin
    return math.inf if math.isnan(finding.effect) else abs(finding.effect)


def sentence(finding: Finding, metrics: Mapping[str, str]) -> str:
    """Returns a finding as a clause: 'the training loss is 0.50 higher with "plain-56" than with "plain-20" (...)'."""
    c, d = finding.comparison, finding.difference
    if not finding.seeds:
        return f'"{c.a}" and "{c.b}" are compared when all runs of the first look are complete'
    size = f"{amount(finding, abs(d))} {_direction(d)}" if d else "the same"
    text = f'the {metrics[c.metric]} is {size} with "{c.a}" {"than" if d else "and"} with "{c.b}" ({evidence(finding)})'
    if finding.verdict != HELD or c.sign == "at_least":
        text += f"; expected: {expectation(c, is_percentage(finding))}"
    if finding.needed:
        text += f"; about {finding.needed} seeds in all would decide it"
    return text


def evidence(finding: Finding) -> str:
    """Returns the evidence for a finding: '95 % interval 0.21 to 0.78; effect size 4.3; 3 seeds'.

    Gives the bounds without a sign, because the sentence before says 'higher' or 'lower'. If the interval contains 0,
    each bound has its direction: '95 % interval from 0.02 lower to 0.78 higher'.
    """
    between = interval(finding, math.copysign(1, finding.difference))
    if both_ways(finding):
        low, high = (amount(finding, abs(bound)) for bound in (finding.low, finding.high))
        between = f"{finding.level * 100:.0f} % interval from {low} lower to {high} higher"
    size = [f"effect size {effect(finding)}"] * bool(effect(finding))
    return "; ".join([between, *size, "1 seed" if finding.seeds == 1 else f"{finding.seeds} seeds"])


def both_ways(finding: Finding) -> bool:
    """Returns whether the interval of a finding has differences of both signs."""
    return math.isfinite(finding.low) and finding.low < 0 < finding.high


def interval(finding: Finding, sign: float = 1) -> str:
    """Returns the interval of a finding's difference, times `sign` (1 or -1): '95 % interval 0.21 to 0.78'."""
    if not math.isfinite(finding.low):
        return "no interval"
    if finding.low == finding.high:
        return "the same in every seed"
    decimals, scale = _decimals(finding), _scale(finding)
    low, high = sorted(sign * bound * scale for bound in (finding.low, finding.high))
    unit = " points" if is_percentage(finding) else ""
    bounds = f"{low:z.{decimals}f} to {high:z.{decimals}f}{unit}"  # z: no -0
    return f"{finding.level * 100:.0f} % interval {bounds}"


def effect(finding: Finding) -> str:
    """Returns the size of the standardized difference as text, '4.3'; '' if it is unknown."""
    if math.isnan(finding.effect):
        return ""
    size = abs(finding.effect)
    return f"over {LARGEST_EFFECT}" if size > LARGEST_EFFECT else f"{size:.1f}"


def expectation(comparison: Comparison, percentage: bool) -> str:
    """Returns what a comparison expects of arm `a`: 'higher by more than 0.5'.

    `percentage` says whether the metric is shown as a percentage.
    """
    margin = margin_amount(comparison, percentage)
    if comparison.sign == "equal":
        return f"within {margin}"
    if comparison.sign == "at_least":
        return f"no more than {margin} lower" if comparison.margin else "not lower"
    return f"{comparison.sign} by more than {margin}" if comparison.margin else comparison.sign


def amount(finding: Finding, value: float, points: str = " points") -> str:
    """Formats a difference of a finding's metric, of percentages in percentage points.

    Has the digits that the interval leaves. `points` is the unit of percentage points.
    """
    text = f"{value * _scale(finding):z.{_decimals(finding)}f}"
    return text + _unit(text, points) * is_percentage(finding)


def margin_amount(comparison: Comparison, percentage: bool, points: str = " points") -> str:
    """Formats the margin of a comparison with as many digits as it has. `points` is the unit of percentage points."""
    text = f"{comparison.margin * (100 if percentage else 1):g}"
    return text + _unit(text, points) * percentage


def _unit(text: str, points: str) -> str:
    """Returns the unit of percentage points for a number, in the singular for '1'."""
    return points.removesuffix("s") if text == "1" else points


def _direction(difference: float) -> str:
    """Returns 'higher' or 'lower'."""
    return "higher" if difference > 0 else "lower"


def is_fraction(metric: str, fractions: Collection[str] = ()) -> bool:
    """Returns whether a metric is shown as a percentage.

    These are `fractions`, those of `Study.fractions`; some of `METRICS`; and the errors of `measure.table_row`.
    """
    row = METRICS.get(metric.rpartition("/")[2])
    return metric in fractions or metric in ERRORS or (row is not None and row.format_spec.endswith("%"))


def is_percentage(finding: Finding) -> bool:
    """Returns whether a finding's metric is shown as a percentage, also for a record of an older version."""
    return finding.percentage or is_fraction(finding.comparison.metric)


def _scale(finding: Finding) -> float:
    """Returns the factor by which a finding's metric is shown."""
    return 100.0 if is_percentage(finding) else 1.0


def _decimals(finding: Finding) -> int:
    """Returns the number of decimals with which half the interval's width has two significant digits."""
    half = (finding.high - finding.low) / 2 * _scale(finding)
    size = half if math.isfinite(half) and half > 0 else abs(finding.difference) * _scale(finding)
    return min(6, max(0, 1 - math.floor(math.log10(size)))) if size else 0
