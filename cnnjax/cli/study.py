"""`cnnjax study`: runs the missing runs of a study, and writes its report."""

import argparse
import datetime
import pathlib
import time
from typing import TYPE_CHECKING

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.errors import InputError, nearest
from cnnjax.study import BUDGETS

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.runs.executors import Start
    from cnnjax.runs.supervise import Run
    from cnnjax.study.report import Judged


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax study` to its parser."""
    parser.usage = "cnnjax study experiments/NAME.py [--budget=quick|standard|full] [--workers=M] [FLAGS]"
    parser.epilog = "Complete runs are kept: the same command resumes a study, and rewrites its report."
    parser.add_argument("file", metavar="FILE", help="file with get_study(budget)")
    budgets = "quick: minutes on two cores; standard: 10 minutes to 2 hours there; full: a GPU (default: quick)"
    parser.add_argument("--budget", default="quick", help=budgets)
    shared.add_executor_flags(parser)
    parser.add_argument("--workdir", metavar="DIR", default="", help="folder of the runs (default: runs/studies/NAME)")
    parser.add_argument(
        "--report", metavar="DIR", default="", help="folder of the report (default: reports/ beside FILE)"
    )
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax study`: runs what is missing, and writes the report.

    `overrides` is empty. Returns the exit status.
    """
    if args.budget not in BUDGETS:
        raise InputError(f"--budget={args.budget}: {nearest(args.budget, BUDGETS)}")
    study = config_files.read_study(args.file, args.budget)

    import jax

    jax.config.update("jax_platforms", "cpu")  # the GPUs are for the runs
    from cnnjax.runs import workdir
    from cnnjax.runs.signals import Interrupted
    from cnnjax.study import conduct, report

    console = shared.setup_jax()
    file = pathlib.Path(args.file)
    conduct.check_study(study)
    start = shared.build_executor(args)
    root = pathlib.Path(args.workdir or f"runs/studies/{file.stem}")
    runs = conduct.all_runs(root, study, args.data_dir)

    def log(line: str) -> None:
        console.print(line, soft_wrap=True)

    root.mkdir(parents=True, exist_ok=True)
    with workdir.hold_lock(root, "study"):
        try:
            failures = _conduct(console, runs, start, args.workers, 60 * args.stall_timeout)
        except Interrupted as interrupted:
            log(f"{interrupted}; rerun the same command to resume")
            return 128 + interrupted.signal
        if failures:
            total = sum(map(len, runs.values()))
            raise InputError(f"{len(failures)} of {total} runs failed, so there is no report. {failures[0]}")
        path = pathlib.Path(args.report or file.parent / "reports") / f"{file.stem}-{args.budget}"
        results = {arm: [conduct.collect(run, study, log) for run in arm_runs] for arm, arm_runs in runs.items()}
        first = next(iter(runs.values()))[0]
        judged = report.write(path, study, results, _provenance(args.file, args.budget, first.folder))
    _print(console, judged)
    log(f"the report is {path}.md, with {path.name}.png, .svg and .csv")
    return 0


def _conduct(
    console: "Console", runs: "dict[str, list[Run]]", start: "Start", workers: int, stall_timeout: float
) -> list[str]:
    """Runs the missing runs of a study, and returns a line for each that failed.

    Prints a line for each run that ends and, if stdout is a terminal, a live view of those in progress.
    """
    from rich.console import Group
    from rich.live import Live

    from cnnjax.study import conduct

    with Live(console=console, auto_refresh=False, transient=True) as live:
        next_view = 0.0

        def show(active: "list[Run]", progress: str) -> None:
            nonlocal next_view
            if console.is_terminal and time.monotonic() >= next_view:
                next_view = time.monotonic() + 1.0
                live.update(Group(*map(shared.describe_run, active), progress), refresh=True)

        return conduct.conduct(runs, start, workers=workers, stall_timeout=stall_timeout,
                               log=lambda line: console.print(line, soft_wrap=True), show=show)  # fmt: skip


def _provenance(file: str, budget: str, run: pathlib.Path) -> list[str]:
    """Returns two lines for the report: the command with its date, and the machine with the versions.

    `run` is the folder of any run of the study.
    """
    from cnnjax.bench.rows import machine_info
    from cnnjax.runs import workdir

    here, there = machine_info(), workdir.read_json(run / "versions.json")
    versions = ", ".join(f"{name} {there[name]}" for name in ("python", "jax", "flax", "optax"))
    return [
        f"`{shared.command_line('study', str(file), f'--budget={budget}')}`, {datetime.date.today():%d %B %Y}",
        f"{here['machine']}, {here['cores']} cores; each run on {there['devices']}; {versions}",
    ]


def _print(console: "Console", judged: "list[Judged]") -> None:
    """Prints the verdict on each claim, and a table of its findings."""
    from rich.table import Table

    for claim, verdict, findings in judged:
        table = Table(title=f"{claim.name}: {verdict}", title_justify="left")
        for name in ("expected", "metric", "difference", "interval", "verdict"):
            table.add_column(name)
        for f in findings:
            expected = f"{f.comparison.a} {f.comparison.sign} than {f.comparison.b}"
            bounds = f"{f.low:+.3g} to {f.high:+.3g}"
            table.add_row(expected, f.comparison.metric, f"{f.difference:+.3g}", bounds, f.verdict)
        console.print(table)
