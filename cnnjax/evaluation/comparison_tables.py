"""A comparison of runs as tables and sentences, for the terminal and for a page."""

from collections.abc import Sequence
from typing import Any

from cnnjax import tables
from cnnjax.evaluation.comparison import ComparedRun, Pair, RunComparison
from cnnjax.evaluation.significance import LEVEL, PairedTest
from cnnjax.runs.duration import format_duration

CAVEAT = (
    "These tests compare trained networks, not recipes: another seed gives another network. `cnnjax study` trains each "
    "recipe with several seeds and tests their difference."
)
MAX_SENTENCES = 10  # on paired tests: all of five runs
RESULTS = (
    "run", "accuracy", f"{LEVEL:.0%} interval", "images", "cross-entropy", "parameters", "MACs",
    "training time", "images/s",
)  # fmt: skip


def settings_table(comparison: RunComparison) -> tables.Table:
    """Builds the table of the settings and versions that differ: a row for each, and a column for each run."""
    letters = [run.letter for run in comparison.runs]
    rows = [[name, *map(_shown, values)] for name, values in comparison.settings.items()]
    rows += [[f"({name})", *map(_shown, values)] for name, values in comparison.versions.items()]
    return tables.Table(("setting", *letters), rows, frozenset(("setting", *letters)))


def settings_lines(comparison: RunComparison, width: int) -> list[str]:
    """Returns the settings that differ in lines of `width` characters: as a table or, if that is wider, as a list.

    In the list, a line for each run follows the name of the setting; these lines may be longer.
    """
    table = settings_table(comparison)
    if not table.rows:
        return ["No setting differs."]
    lines = tables.as_text(table, 10**6)
    if max(map(len, lines)) <= width:
        return lines
    letters = table.headings[1:]
    return [
        line
        for name, *values in table.rows
        for line in (name, *(f"  {letter}  {value}" for letter, value in zip(letters, values, strict=True)))
    ]


def _shown(value: Any) -> str:
    """Formats a setting: texts without quotes, the empty one as '-'."""
    return "-" if value == "" else str(value)


def results_table(comparison: RunComparison) -> tables.Table:
    """Builds the table of results, with a row for each run. '-' stands for what is not known."""
    return tables.Table(RESULTS, [_result_row(run) for run in comparison.runs], frozenset(("run",)))


def _result_row(run: ComparedRun) -> list[str]:
    """Returns a run's row, in the order of RESULTS."""
    test = run.test
    interval = test.interval if test else None
    cells = [
        test and f"{test.accuracy:.2%}",
        interval and f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}%",
        test and test.count and f"{test.count:,}",
        test and test.nll is not None and f"{test.nll:.4f}",
        f"{run.params:,}",
        f"{run.macs:,}",
        run.training_seconds and format_duration(run.training_seconds),
        run.images_per_second and f"{run.images_per_second:,.0f}",
    ]
    return [run.letter, *(cell or "-" for cell in cells)]


def tested_on(comparison: RunComparison) -> str:
    """Returns what the results are from: 'test split of digits'; one part per run if they differ."""
    parts: dict[str, list[str]] = {}
    for run in comparison.runs:
        if run.test:
            parts.setdefault(f"{run.test.dataset} {run.test.split}", []).append(f"{run.letter} step {run.test.step:,}")
    return "; ".join(f"{subject} ({', '.join(runs)})" for subject, runs in parts.items())


def sentences(comparison: RunComparison) -> list[str]:
    """Returns the outcome of each paired test in a sentence, and why others are missing.

    With more than MAX_SENTENCES tests, lists only those of the most accurate run.
    """
    pairs, omitted = comparison.pairs, []
    if len(pairs) > MAX_SENTENCES:
        tested = sorted({place for pair in pairs for place in (pair.first, pair.second)})
        best = max(tested, key=lambda place: _accuracy(comparison.runs[place]))
        pairs = tuple(pair for pair in pairs if best in (pair.first, pair.second))
        omitted = [
            f"Only the tests of {comparison.runs[best].letter}, the most accurate run, are listed: {len(pairs)} of "
            f"{len(comparison.pairs)}; compare two runs for another pair"
        ]
    return [*(pair_sentence(comparison.runs, pair) for pair in pairs), *omitted, *comparison.untested]


def _accuracy(run: ComparedRun) -> float:
    """Returns the accuracy of a run; 0 if it is not known."""
    return run.test.accuracy if run.test else 0.0


def pair_sentence(runs: Sequence[ComparedRun], pair: Pair) -> str:
    """Returns the outcome of a paired test: 'B is better than A: 31 images only B has right, 12 only A (...)'.

    The better one comes first, and the difference and its interval are in its favor.
    """
    test, (a, b) = pair.test, (runs[pair.first].letter, runs[pair.second].letter)
    if not test.only_first + test.only_second:
        return f"{a} and {b} classify the same {test.both:,} of {test.count:,} images correctly"
    low, high = test.interval
    difference, b_images, a_images = test.difference, test.only_second, test.only_first
    if difference < 0:
        a, b, a_images, b_images = b, a, b_images, a_images
        difference, low, high = -difference, 0.0 - high, 0.0 - low
    images = f"{b_images:,} image{'s' * (b_images != 1)} only {b} has right, {a_images:,} only {a}"
    points = f"{100 * difference:+.2f} points, {LEVEL:.0%} interval {100 * low:+.2f} to {100 * high:+.2f}"
    verdict = f"{b} is better than {a}" if test.is_significant else f"No difference between {b} and {a} can be shown"
    return f"{verdict}: {images} ({_p(test)}); {points}"


def _p(test: PairedTest) -> str:
    """Returns the p-value of a test in words: 'McNemar p = 0.005', and for how many tests it is corrected."""
    value = "< 0.0001" if test.p < 1e-4 else f"= {test.p:.2g}"
    return f"McNemar p {value}" + (f", corrected for {test.tests} tests" if test.tests > 1 else "")


def csv_table(comparison: RunComparison) -> tables.Table:
    """Builds a table of plain numbers: a row for each run, with the paired test between it and the first run.

    "p" is corrected for all tests. Columns for the settings that differ follow, named config.FIELD. Unknown values are
    empty.
    """
    rows = [_plain_row(comparison, place) for place in range(len(comparison.runs))]
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    return tables.Table(tuple(rows[0]), cells)


def _plain_row(comparison: RunComparison, place: int) -> dict[str, Any]:
    """Returns a run's row of `csv_table`. None stands for what is not known."""
    run = comparison.runs[place]
    test, low, high = run.test, *((run.test and run.test.interval) or (None, None))
    row = {
        "run": run.letter,
        "folder": run.folder,
        "dataset": test and test.dataset,
        "split": test and test.split,
        "step": test and test.step,
        "images": (test and test.count) or None,
        "accuracy": test and test.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "nll": test and test.nll,
        "loss": test and test.loss,
        "parameters": run.params,
        "macs": run.macs,
        "training_seconds": run.training_seconds,
        "images_per_second": run.images_per_second,
    }
    pair = next((pair.test for pair in comparison.pairs if (pair.first, pair.second) == (0, place)), None)
    low, high = pair.interval if pair else (None, None)
    row |= {
        "only_this_right": pair and pair.only_second,
        "only_first_right": pair and pair.only_first,
        "difference": pair and pair.difference,
        "difference_low": low,
        "difference_high": high,
        "p": pair and pair.p,
    }
    return row | {f"config.{name}": values[place] for name, values in comparison.settings.items()}
