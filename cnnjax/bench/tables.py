"""Prints measurements as tables."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from cnnjax.bench.baseline import Comparison
from cnnjax.bench.rows import Row
from cnnjax.bench.timeline import LayerOp
from cnnjax.console import Console

MAX_PROFILE_LINES = 25


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """Prints a table of the measurements, and a line about the machine. `rows` are of one machine, at least one."""
    table = _table("Speed and memory", {"model": "left", "batch": "right", "what": "left"} | dict.fromkeys(
        ("steps/s", "quartiles", "images/s", "GFLOP/s", "of roofline", "compilation", "memory"), "right"))  # fmt: skip
    for row in rows:
        table.add_row(row.model, str(row.batch), row.what, *_speed_cells(row), *_cost_cells(row))
    console.print(table)
    first = rows[0]
    console.print(
        f"{first.machine}, {first.cores} cores, {first.devices} device(s); Python {first.python}, jax {first.jax}, "
        f"jaxlib {first.jaxlib}; {first.dtype}; convolutions: {first.convolutions}",
        soft_wrap=True,
    )


def print_row(console: Console, row: Row) -> None:
    """Prints a measurement as one line, with the comparison with PyTorch if there is one."""
    speed, spread, images = _speed_cells(row)
    parts = [speed + " steps/s" * (row.steps_per_second is not None) + f" (quartiles {spread})"] if speed else []
    parts += [f"{images} images/s"] if images else []
    if row.ratio is not None:
        spread = f"quartiles {row.ratio_q1:.2f} to {row.ratio_q3:.2f}, {row.pairs} pairs"
        parts.append(f"{row.ratio:.2f} of the time of {row.peer} ({spread})")
    *_, compilation, memory = _cost_cells(row)
    parts += [f"{compilation} of compilation"] if compilation else []
    parts += [memory] if memory else []
    console.print(f"{row.model} {row.what}: {', '.join(parts)}", soft_wrap=True)


def _speed_cells(row: Row) -> tuple[str, str, str]:
    """Returns the cells of a row for steps/s, its quartiles and images/s; three '' if no time was measured.

    A row that measures starting (`what` is 'start_cold' or 'start_warm') has seconds, their quartiles and '' instead.
    """
    if row.seconds is None or row.seconds_q1 is None or row.seconds_q3 is None:
        return "", "", ""
    if row.steps_per_second is None:
        return f"{row.seconds:.2f} s", f"{row.seconds_q1:.2f}-{row.seconds_q3:.2f} s", ""
    spread = f"{1 / row.seconds_q3:.4g}-{1 / row.seconds_q1:.4g}"
    return f"{row.steps_per_second:.4g}", spread, f"{row.images_per_second:,.0f}"


def _cost_cells(row: Row) -> tuple[str, ...]:
    """Returns the cells of a row for GFLOP/s, fraction of the roofline, compile time and memory; '' if not measured."""
    return (
        "" if row.flops_per_second is None else f"{row.flops_per_second / 1e9:,.1f}",
        "" if row.roofline is None else f"{row.roofline:.0%}",
        "" if row.compile_seconds is None else f"{row.compile_seconds:.1f} s",
        "" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f} MiB",
    )


def print_profile(console: Console, title: str, seconds: Mapping[LayerOp, float], idle: float) -> None:
    """Prints a table of the seconds per step of each operation, longest first.

    `idle` are the seconds in which no operation ran.
    """
    total = sum(seconds.values()) + idle
    columns = {"layer": "left", "direction": "left", "operation": "left", "ms": "right", "fraction": "right"}
    table = _table(f"{title}: {total * 1e3:.2f} ms per step", columns)
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    lines = [(op.layer or "outside the network", op.direction, op.kind, time) for op, time in ranked]
    if others := lines[MAX_PROFILE_LINES:]:
        lines[MAX_PROFILE_LINES:] = [(f"{len(others)} others", "", "", sum(time for *_, time in others))]
    for *words, time in [*lines, ("idle", "", "", idle)]:
        table.add_row(*words, f"{time * 1e3:.3f}", f"{time / total:.1%}")
    console.print(table)


def print_comparisons(console: Console, comparisons: Sequence[Comparison], title: str, tolerance: float) -> None:
    """Prints a table of the comparisons with the baseline. `tolerance` is shown with each regression."""
    columns = {"model": "left", "batch": "right", "what": "left", "new / baseline": "right", "verdict": "left"}
    table = _table(title, columns)
    for comparison in comparisons:
        row, ratio = comparison.row, comparison.ratio
        verdict = comparison.verdict + f", by more than {tolerance:.0%}" * comparison.is_regression
        table.add_row(row.model, str(row.batch), row.what, "" if ratio is None else f"{ratio:.2f}", verdict)
    console.print(table)


def _table(title: str, columns: Mapping[str, str]) -> Table:
    """Returns an empty table. `columns` is heading -> 'left' or 'right'. Only the first column may be wrapped."""
    table = Table(title=title, title_justify="left")
    for i, (heading, side) in enumerate(columns.items()):
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=i > 0, overflow="fold")
    return table
