"""`cnnjax study`: runs the missing runs of a study, and writes its report; or lists all claims."""

import argparse
import datetime
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.errors import InputError, matching, nearest, unknown
from cnnjax.study import BUDGETS

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.runs.executors import Start
    from cnnjax.runs.supervise import Run
    from cnnjax.study import Study, sequence
    from cnnjax.study.facts import Fact
    from cnnjax.study.record import Plan, StudyReport


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax study` to its parser."""
    parser.usage = (
        "cnnjax study experiments/NAME.py [--budget=quick|standard|full] [--workers=M] [FLAGS] | --list [PATTERN]"
    )
    parser.epilog = "Complete runs are kept: the same command resumes a study, and rewrites its report."
    parser.add_argument("file", metavar="FILE", nargs="?", help="file with get_study(budget), or with get_facts()")
    parser.add_argument(
        "--list", action="store_true", dest="lists",
        help="list the claims of all files with their verdicts, or those with PATTERN in their name, file or chapter",
    )  # fmt: skip
    shared.add_format_flags(parser, ("csv", "markdown"))
    budgets = "quick: minutes; standard: 10 minutes to 2 hours, both on two cores; full: for a GPU (default: quick)"
    parser.add_argument("--budget", default="quick", help=budgets)
    shared.add_executor_flags(parser)
    parser.add_argument("--workdir", metavar="DIR", default="", help="folder of the runs (default: runs/studies/NAME)")
    parser.add_argument(
        "--report", metavar="DIR", default="", help="folder of the report (default: reports/ beside FILE)"
    )
    parser.add_argument(
        "--report_only",
        action="store_true",
        help="train nothing; write the report from the complete runs or, if these are elsewhere, from its CSV file",
    )
    parser.add_argument(
        "--arms", metavar="PATTERN", default="",
        help="for a table of results, train only the rows with PATTERN in their name; keep the others unchanged",
    )  # fmt: skip
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax study`: runs what is missing, and writes the report.

    `overrides` is empty. Returns the exit status.
    """
    if args.lists:
        return _list(args.file or "", args.format)
    _check_flags(args)
    file = config_files.find_file(args.file, "experiments", "study")
    if facts := config_files.read_facts(str(file)):
        return _check_facts(args, file, facts)
    study = config_files.read_study(str(file), args.budget)

    import jax

    jax.config.update("jax_platforms", "cpu")  # the GPUs are for the runs
    from cnnjax.runs import workdir
    from cnnjax.runs.signals import Interrupted
    from cnnjax.study import conduct, plan, report, results_table, sequence
    from cnnjax.study.check import check_study

    console = shared.setup_jax()
    check_study(study)
    start = shared.build_executor(args)
    root = pathlib.Path(args.workdir or f"runs/studies/{file.stem}")
    path = pathlib.Path(args.report or file.parent / "reports") / f"{file.stem}-{args.budget}"

    log = console.print_line
    command = shared.command_line("study", args.file, f"--budget={args.budget}")
    runs_of = functools.partial(conduct.all_runs, root, study, args.data_dir)
    before = {} if study.claims else results_table.kept(path.with_name(f"{path.name}.csv"), study)
    arms = _choose_arms(args, study, before)

    def train(runs: "sequence.Runs") -> "list[str]":
        return _conduct(console, runs, start, args.workers, 60 * args.stall_timeout)

    root.mkdir(parents=True, exist_ok=True)
    with workdir.hold_lock(root, "study"):
        complete = sum(map(len, sequence.complete_runs(root, study, args.data_dir).values()))
        if study.claims and args.report_only and complete < report.count_runs(path):
            log(f"{root} has {complete} runs, fewer than {path.name}.csv: the page uses that; the figure is kept")
            return _show(log, path, report.rewrite(path, study, command))
        first = plan.register(path.with_name(f"{path.name}.json"), study, args.budget, complete)
        try:
            if study.claims and not args.report_only:
                runs, results = sequence.run_looks(study, runs_of, train, log)
            else:
                _train_arms(arms, runs_of(study.first_seeds()), train)
                runs = sequence.complete_runs(root, study, args.data_dir)
                results = {arm: [conduct.collect(run, study, log) for run in runs[arm]] for arm in runs}
        except Interrupted as interrupted:
            log(f"{interrupted}; rerun the same command to resume")
            return 128 + interrupted.signal
        if study.claims:
            record = _record(file.stem, args.budget, first, runs)
        else:
            results = results_table.with_kept(results, before)
            record = results_table.record(file.stem, args.budget, first, results)
        record = report.write(path, study, results, record, command)
    return _show(log, path, record)


def _show(log: "Callable[[str], None]", path: pathlib.Path, record: "StudyReport") -> int:
    """Logs the verdicts and the files of a report. Returns 0."""
    for claim in record.claims:
        log(f"{claim.name}: {claim.headline}")
    log(f"the report is {path}.md, with {path.name}.png, .svg, .csv and .json")
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for --csv or --markdown without --list, or without a file; InputError for a wrong budget."""
    if args.format:
        raise shared.UsageError(f"--{args.format} prints the list of claims: give --list as well")
    if not args.file:
        raise shared.UsageError("the following arguments are required: FILE, or --list")
    if args.budget not in BUDGETS:
        raise InputError(f"--budget={args.budget}: {nearest(args.budget, BUDGETS)}")


def _train_arms(
    arms: "Sequence[str]", runs: "sequence.Runs", train: "Callable[[sequence.Runs], Sequence[str]]"
) -> None:
    """Trains the missing runs of some arms, if there are any. Raises InputError if runs failed."""
    chosen = {arm: runs[arm] for arm in arms}
    if failures := train(chosen) if chosen else []:
        raise InputError(f"{len(failures)} of these runs failed. {failures[0]}")


def _choose_arms(args: argparse.Namespace, study: "Study", before: "sequence.Results") -> list[str]:
    """Returns the arms of a table that are to be trained: those that --arms names or, without it, that lack runs.

    `before` are the runs in the table. Raises InputError if --arms names none, or for claims.
    """
    if not args.arms:
        return [arm for arm in before if len(before[arm]) < study.first_seeds()[arm] and not args.report_only]
    if study.claims:
        raise InputError("--arms is for a table of results: the claims of a study need all of its arms")
    if args.report_only:
        raise InputError("--arms starts training, --report_only does not train: pass only one of them")
    if not (arms := matching(args.arms, study.arms)):
        raise unknown("arm", args.arms, study.arms)
    return arms


def _list(pattern: str, form: str) -> int:
    """Prints the claims that match `pattern` with their verdicts, as text or in the format `form`. Returns 0.

    Raises InputError if there are none.
    """
    from rich.table import Table

    from cnnjax.study import listing

    console = shared.make_console()
    if not (files := config_files.config_files("experiments")):
        raise InputError("there are no studies in ./experiments, and none came with the package")
    everything = listing.read_entries(files)
    words = [(entry.claim.name, entry.file.stem, entry.claim.chapter) for entry in everything]
    entries = [entry for entry, names in zip(everything, words, strict=True) if matching(pattern, names)]
    if not entries:
        raise unknown("claim", pattern, {name for names in words for name in names})
    if form:
        for line in listing.as_csv(entries) if form == "csv" else listing.as_markdown(entries):
            console.print_line(line)
        return 0
    view = Table("chapter", *listing.HEADINGS, title=listing.count_verdicts(entries), title_justify="left")
    for chapter, group in listing.by_chapter(entries).items():
        view.add_section()
        for i, entry in enumerate(group):
            first = chapter if i == 0 else ""
            view.add_row(first, listing.statement(entry), entry.verdict, entry.finding, entry.evidence)
    console.print(view)
    return 0


def _check_facts(args: argparse.Namespace, file: pathlib.Path, facts: "Sequence[Fact]") -> int:
    """Computes the numbers of a file of facts, prints the verdicts, and writes the report. Returns the exit status."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    from rich.table import Table

    from cnnjax.study.facts import check, count_verdicts, table, write

    console = shared.setup_jax()
    reports = [check(fact) for fact in facts]
    path = pathlib.Path(args.report or file.parent / "reports") / file.stem
    write(path, reports, shared.command_line("study", args.file))
    shown, title = table(reports), f"{file.stem}: {count_verdicts(reports)}"
    view = Table(*shown.headings, title=title, title_justify="left", show_lines=True)
    for row in shown.rows:
        view.add_row(*row)
    console.print(view)
    console.print_line(f"the report is {path}.md, with {path.name}.json")
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
                               log=console.print_line, show=show)  # fmt: skip


def _record(name: str, budget: str, plan: "Plan", runs: "sequence.Runs") -> "StudyReport":
    """Returns the record of a study without its verdicts: date, machines, versions and hours of all its runs.

    Raises InputError if there are no runs.
    """
    from cnnjax.runs import workdir
    from cnnjax.study.record import StudyReport

    folders = [run.folder for arm_runs in runs.values() for run in arm_runs]
    if not folders:
        raise InputError(f"no run of {name} is complete, so there is no report; leave out --report_only")
    found = [workdir.read_json(path) for folder in folders if (path := folder / "versions.json").exists()]

    def every(entry: str) -> str:
        return ", ".join(sorted({str(versions[entry]) for versions in found if entry in versions}))

    seconds = sum(workdir.read_json(folder / "result.json").get("seconds", 0.0) for folder in folders)
    return StudyReport(
        study=name,
        budget=budget,
        date=datetime.date.today().isoformat(),
        machine="; ".join(filter(None, [every("processor"), f"each run on {every('devices')}"])),
        versions={package: every(package) for package in ("python", "jax", "flax", "optax")},
        hours=round(seconds / 3600, 3),
        plan=plan,
    )
