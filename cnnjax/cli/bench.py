"""`cnnjax bench`: measures speed and memory; compares with PyTorch, and with a saved baseline."""

import argparse
import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.config import Config, check
from cnnjax.errors import InputError, unknown

if TYPE_CHECKING:
    from cnnjax.bench.measure import Run
    from cnnjax.bench.rows import Row
    from cnnjax.console import Console
    from cnnjax.training.setup import Setup

# Measured by default: one network of each kind -> a batch size that fits a laptop's memory.
ZOO = {
    "lenet5": 128,
    "cifar_resnet20": 128,
    "resnet18": 16,
    "vgg11": 8,
    "mobilenet_v1": 16,
    "densenet40_12": 64,
    "googlenet_torchvision": 16,
    "se_resnet50": 8,
    "resnext50_32x4d": 8,
}
MEASUREMENTS = {
    "train": "a training step: forward, backward and update",
    "forward": "the evaluation of a batch",
    "memory": "compile time and peak memory of a training step, without running it",
    "input": "the input pipeline of a config, without training",
    "loop": "training steps of a config, including its input pipeline",
    "start": "from the command to the end of the first step: with an empty compilation cache, and with a filled one",
}
ROOFLINE = """\
FLOP/s count the multiplications and additions of convolutions and fully connected layers. The roofline is the smaller
of two speeds: that of a large matrix product, and that at which memory bandwidth, measured by a large copy, delivers
the bytes that XLA counts for a step. Steps that fit in a processor's caches can exceed 100 %."""


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax bench` to its parser."""
    parser.usage = "cnnjax bench [MODEL ...] [FLAGS], or cnnjax bench NAME[:arg] [--config.FIELD=VALUE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = [f"  {name:10} {text}" for name, text in MEASUREMENTS.items()]
    parser.epilog = "\n".join(["--what is one or more of these, separated by commas:", *lines, "", ROOFLINE])
    parser.accepts_overrides = True
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help=f"networks, or their call strings (default: {', '.join(ZOO)})")
    shared.add_config_flag(parser, "measure the network, data and training step of a config file")
    add("--batch", type=int, metavar="N", help="images per step (default: the config's, or by the network's size)")
    add("--input", metavar="HxW[xC]", help="image size (default: the paper's)")
    add("--dtype", choices=("float32", "bfloat16"), help="type of the computation (default: float32, or the config's)")
    add("--what", metavar="LIST", help="what to measure (default: train,forward; for a config with --vs: input,loop)")
    add("--repeats", type=int, default=8, metavar="N", help="number of blocks of about 1 s, or of starts (default: 8)")
    add("--csv", type=pathlib.Path, metavar="FILE", help="append every measurement to this file")
    add("--against", type=pathlib.Path, metavar="FILE", help="compare with a baseline saved by --csv")
    add("--tolerance", type=float, default=0.1, metavar="X",
        help="with --against, exit with status 1 if something is slower or larger by more than this fraction "
             "(default: 0.1)")  # fmt: skip
    add("--vs", metavar="PYTHON", help="compare with PyTorch: path of a Python with torch and torchvision")
    add("--vs_compile", action="store_true", help="with --vs, use torch.compile")
    add("--profile", type=pathlib.Path, metavar="DIR", help="write traces into this folder, and print time by layer")
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax bench`.

    `overrides` are the --config.FIELD=VALUE arguments. Returns the exit status: 1 if --against finds a regression.
    """
    if args.config is None and len(args.models) == 1 and config_files.is_config(args.models[0]):
        args.config, args.models = args.models[0], []  # no config has the name of a network
    config = _check_flags(args, overrides)
    if args.vs or "start" in args.what:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # another process needs GPU memory, too

    from cnnjax.bench import baseline, peer, tables

    if args.csv:
        baseline.check_writable(args.csv)
    if args.profile:
        args.profile.mkdir(parents=True, exist_ok=True)
    records = baseline.read(args.against) if args.against else []
    setups = _setups(args, config)
    console = shared.setup_jax(use_cache=False)  # compile times are measured
    rows: list[Row] = []
    with peer.start_workers(args.vs) if args.vs else contextlib.nullcontext([]) as workers:
        for make_setup in setups:
            setup = make_setup()
            for what in args.what:
                if not console.is_terminal:  # where no status is shown, a log says what takes the time
                    console.print_line(f"measuring {setup.config.model} {what}")
                with console.status(f"measuring {setup.config.model} {what}", refresh_per_second=1):
                    new_rows = _measure(args, setup, what, workers, console)
                for row in new_rows:
                    rows.append(row)
                    tables.print_row(console, row)
                    if args.csv:
                        baseline.append(args.csv, row)
    tables.print_rows(console, rows)
    if not args.against:
        return 0
    comparisons = baseline.compare(rows, records, args.tolerance)
    tables.print_comparisons(console, comparisons, f"Compared with {args.against}", args.tolerance)
    return int(any(comparison.is_regression for comparison in comparisons))


def _check_flags(args: argparse.Namespace, overrides: list[str]) -> Config | None:
    """Checks the flags, splits `args.what` into a list, and returns the config of --config with all changes, or None.

    Raises InputError for flags that are out of range or exclude each other.
    """
    for name, minimum in {"batch": 1, "repeats": 1, "tolerance": 0}.items():
        if (value := getattr(args, name)) is not None and not minimum <= value < float("inf"):
            raise InputError(f"--{name}={value}: expected at least {minimum}")
    default = "input,loop" if args.config and args.vs else "train,forward"
    args.what = list(dict.fromkeys((default if args.what is None else args.what).split(",")))
    for name in args.what:
        if name not in MEASUREMENTS:
            raise unknown("--what", name, MEASUREMENTS)
    if args.config is None:
        if overrides:
            without = " without --config=FILE" * overrides[0].startswith("--config.")
            raise shared.UsageError(f"unexpected argument {overrides[0]}{without}")
        for name in ("input", "loop", "start"):
            if name in args.what:
                raise InputError(f"--what={name} needs --config=FILE: a network alone has no data")
        return None
    for name in ("models", "input"):
        if getattr(args, name):
            raise InputError(f"{name if name == 'models' else '--' + name} and --config do not go together: "
                             "a config has its own network and data")  # fmt: skip
    if args.vs and not set(args.what) <= {"input", "loop"}:
        raise InputError(f"--what={','.join(args.what)}: with --config, --vs compares input and loop; "
                         "to compare train and forward, name models instead")  # fmt: skip
    config = config_files.read_config(args.config, overrides, args.flag_names)
    config.dtype, config.batch_size = args.dtype or config.dtype, args.batch or config.batch_size
    return check(config)


def _setups(args: argparse.Namespace, config: Config | None) -> list[Callable[[], "Setup"]]:
    """Returns a function for each network to measure, which sets it up. Checks the names of the networks at once."""
    from cnnjax import spec
    from cnnjax.bench import measure
    from cnnjax.models import MODELS, create_model

    if config is not None:
        return [lambda: measure.of_config(config, args.data_dir)]
    setups = []
    for text in args.models or ZOO:
        name = spec.parse(text).name
        if name not in MODELS:
            raise unknown("model", name, MODELS)
        classes = MODELS[name].num_classes or create_model(text).num_classes  # a list of layers has its own
        shape = shared.parse_image_shape(args.input, MODELS[name].input_shape)
        create_model(text, classes)
        batch = args.batch or ZOO.get(name) or (128 if shape[0] * shape[1] <= 64 * 64 else 16)
        arguments = (text, classes, shape, batch, args.dtype or "float32")
        setups.append(lambda arguments=arguments: measure.of_model(*arguments))
    return setups


def _measure(args: argparse.Namespace, setup: "Setup", what: str, workers: Any, console: "Console") -> list["Row"]:
    """Measures `what`, a key of MEASUREMENTS, and returns a row; for 'start', two: with an empty and a filled cache.

    With --profile, also writes a trace and prints the time by layer. `workers` are the processes that run PyTorch; []
    for no comparison.
    """
    from cnnjax.bench import measure, rows, tables, timeline

    if what == "start":
        return _measure_starts(args, setup)
    row = rows.new_row(setup.config, setup.source.shape, what)
    if what == "input":
        _add_times(args, setup, row, measure.input_run(setup), 0, workers, console)
        return [row]
    program = measure.compile_step(setup, "train" if what == "memory" else what)
    row.compile_seconds, row.memory_bytes = program.compile_seconds, program.memory_bytes
    if what == "memory":
        return [row]
    _add_times(args, setup, row, program.run, program.params, workers, console)
    flops, peaks = measure.step_flops(setup, what), measure.peaks(setup.config.dtype)
    row.flops_per_second = flops * (row.steps_per_second or 0)
    row.roofline = row.flops_per_second / measure.roofline(flops, program.bytes_accessed, peaks)
    if args.profile:
        folder = args.profile / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', setup.config.model)}-{what}"
        seconds, idle = timeline.record(folder, program.run, program.text)
        title = f"{setup.config.model} {what}, batch {setup.config.batch_size}"
        tables.print_profile(console, title, seconds, idle)
        console.print_line(f"the trace is in {folder}, for TensorBoard or Perfetto")
    return [row]


def _measure_starts(args: argparse.Namespace, setup: "Setup") -> list["Row"]:
    """Times starts of `cnnjax train` until the first step.

    Returns a row for one start with an empty compilation cache, and a row for --repeats starts with a filled one.
    """
    from cnnjax.bench import rows, startup

    with tempfile.TemporaryDirectory(prefix="cnnjax-cache-") as cache:
        first, *others = [
            startup.startup_seconds(setup.config, args.data_dir, pathlib.Path(cache)) for _ in range(args.repeats + 1)
        ]
    cold, warm = (rows.new_row(setup.config, setup.source.shape, what) for what in ("start_cold", "start_warm"))
    rows.add_times(cold, [first])
    rows.add_times(warm, others)
    return [cold, warm]


def _add_times(
    args: argparse.Namespace, setup: "Setup", row: "Row", run: "Run", params: int, workers: Any, console: "Console"
) -> None:
    """Times `run` in blocks and adds the times to `row`.

    `run` runs a number of steps and returns their seconds. With `workers`, its blocks alternate with those of the same
    network in PyTorch, and the ratios of the times are added, too. `params` is the number of our network's parameters,
    which PyTorch's has to match; 0 for the input pipeline.
    """
    from cnnjax.bench import measure, peer, rows

    with tempfile.TemporaryDirectory(prefix="cnnjax-bench-") as name:
        data = peer.export_data(pathlib.Path(name), setup.config, args.data_dir) if workers and args.config else None
        other = peer.build_peer(workers, setup, row.what, params, args.vs_compile, data) if workers else None
        if other is None:
            if workers:
                console.print(f"{row.model}: PyTorch has no such network to compare with; measured alone")
            rows.add_times(row, measure.blocks(run, args.repeats))
            return
        row.peer = other.source
        ours, theirs = peer.interleave(run, other.run, args.repeats)
    rows.add_times(row, ours)
    rows.add_ratios(row, ours, theirs)
