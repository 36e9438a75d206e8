"""Measurements as tables for people."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from cnnjax.bench.kept import Verdict
from cnnjax.bench.rows import Row
from cnnjax.bench.timeline import Part

SHOWN = 25  # lines of a profile


def rows(console: Console, measured: Sequence[Row]) -> None:
    """What was measured, the peers' ratios, and where."""
    table = _table("Speed and memory", {"model": "left", "batch": "right", "what": "left"} | dict.fromkeys(
        ("steps/s", "quartiles", "images/s", "GFLOP/s", "roofline", "compile", "memory"), "right"))  # fmt: skip
    for row in measured:
        table.add_row(row.model, str(row.batch), row.what, *_speed(row), *_cost(row))
    console.print(table)
    for row in measured:
        if row.ratio is not None:
            console.print(
                f"{row.model} {row.what}: {row.ratio:.2f} of the time of {row.peer} "
                f"(quartiles {row.ratio_q1:.2f} to {row.ratio_q3:.2f} of {row.pairs} pairs)",
                soft_wrap=True,
            )
    first = measured[0]
    console.print(
        f"{first.machine}, {first.cores} cores, {first.devices} device(s); Python {first.python}, jax {first.jax}, "
        f"jaxlib {first.jaxlib}; {first.dtype}; convolutions: {first.convolutions}",
        soft_wrap=True,
    )


def _speed(row: Row) -> tuple[str, str, str]:
    """Steps a second, their spread and images a second; seconds where there is one step."""
    if row.seconds is None or row.seconds_q1 is None or row.seconds_q3 is None:
        return "", "", ""
    if row.steps_per_second is None:
        return f"{row.seconds:.2f} s", f"{row.seconds_q1:.2f}-{row.seconds_q3:.2f} s", ""
    spread = f"{1 / row.seconds_q3:.4g}-{1 / row.seconds_q1:.4g}"
    return f"{row.steps_per_second:.4g}", spread, f"{row.images_per_second:,.0f}"


def _cost(row: Row) -> tuple[str, ...]:
    return (
        "" if row.flops_per_second is None else f"{row.flops_per_second / 1e9:,.1f}",
        "" if row.roofline is None else f"{row.roofline:.0%}",
        "" if row.compile_seconds is None else f"{row.compile_seconds:.1f} s",
        "" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f} MiB",
    )


def profile(console: Console, what: str, totals: Mapping[Part, float], idle: float) -> None:
    """Where the seconds of a step go, the most first; `idle` are those in which nothing of these ran."""
    whole = sum(totals.values()) + idle
    columns = {"layer": "left", "direction": "left", "operation": "left", "ms": "right", "share": "right"}
    table = _table(f"{what}: {whole * 1e3:.2f} ms a step", columns)
    ranked = sorted(totals.items(), key=lambda item: -item[1])
    lines = [(part.layer or "outside", part.direction, part.kind, seconds) for part, seconds in ranked[:SHOWN]]
    if more := ranked[SHOWN:]:
        lines.append((f"{len(more)} more", "", "", sum(seconds for _, seconds in more)))
    for *words, seconds in [*lines, ("nothing of these runs", "", "", idle)]:
        table.add_row(*words, f"{seconds * 1e3:.3f}", f"{seconds / whole:.1%}")
    console.print(table)


def verdicts(console: Console, found: Sequence[Verdict], title: str, tolerance: float) -> None:
    """What has become of each measurement since the kept ones."""
    columns = {"model": "left", "batch": "right", "what": "left", "kept = 1": "right", "verdict": "left"}
    table = _table(title, columns)
    for row, ratio, word, worse in found:
        verdict = word + f", by more than {tolerance:.0%}" * worse
        table.add_row(row.model, str(row.batch), row.what, "" if ratio is None else f"{ratio:.2f}", verdict)
    console.print(table)


def _table(title: str, columns: Mapping[str, str]) -> Table:
    """An empty table; the first column may be folded, of the others each has its justification."""
    table = Table(title=title, title_justify="left")
    for i, (name, side) in enumerate(columns.items()):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=i > 0, overflow="fold")
    return table
