"""`cnnjax bench`: speed and memory, beside PyTorch's and against what was kept."""

import argparse
import contextlib
import os
import pathlib
import re
import tempfile
from typing import TYPE_CHECKING, Any

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.config import Config, check
from cnnjax.errors import InputError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from cnnjax.bench.measure import Run
    from cnnjax.bench.rows import Row
    from cnnjax.training.setup import Setup

# Measured when nothing else is asked for: one network of each kind, with a batch that a laptop's memory holds.
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
WHAT = {
    "train": "a training step: forward, backward and update",
    "forward": "the evaluation of a batch",
    "memory": "compile time and peak memory of a training step, which is not run",
    "input": "a config's batches, without the training",
    "loop": "training steps of a config, each with the next batch",
    "start": "from the command to the end of the first step, with an empty compilation cache and a filled one",
}
WHAT_LINES = [f"  {name:10} {text}" for name, text in WHAT.items()]
ROOFLINE = """\
FLOP/s are from the multiplications of convolutions and full connections. The roofline is the smaller of two speeds:
that of a large matrix product, and that at which the bytes of a step, as XLA counts them, go through memory in a large
copy. What stays in the caches of a processor can be above 100 % of it."""


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax bench [MODEL ...] [FLAGS], or cnnjax bench --config=FILE[:arg] [--config.FIELD=VALUE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["--what is one or more of these, separated by commas:", *WHAT_LINES, "", ROOFLINE])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"call strings (default: {', '.join(ZOO)})")
    parser.add_argument("--config", metavar="FILE[:arg]", help="the network, data and step of a config")
    parser.add_argument("--batch", type=int, help="images in a step (default: the config's, or by the network's size)")
    parser.add_argument("--input", metavar="HxW[xC]", help="the images' size (default: the paper's)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32, or the config's")
    parser.add_argument("--what", help="default: train,forward; of a config with --vs: input,loop")
    parser.add_argument("--repeats", type=int, default=8, help="blocks of about a second, or starts (default: 8)")
    parser.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="adds a row for each measurement")
    parser.add_argument("--against", type=pathlib.Path, metavar="FILE", help="compares with rows kept by --csv")
    parser.add_argument("--tolerance", type=float, default=0.1, help="--against fails for more (default: 0.1, 10 %%)")
    parser.add_argument(
        "--vs", metavar="PYTHON", help="a Python with torch (and torchvision): measures it in turns with us"
    )
    parser.add_argument("--vs_compile", action="store_true", help="that one by torch.compile")
    parser.add_argument("--profile", type=pathlib.Path, metavar="DIR", help="writes traces; says where the time goes")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args, rest = parser.parse_known_args(argv)
    config = _check(parser, args, rest)
    if args.vs or "start" in args.what:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # another process needs the GPU's memory, too

    from cnnjax.bench import kept, peer, show

    if args.csv:
        kept.check_writable(args.csv)
    if args.profile:
        args.profile.mkdir(parents=True, exist_ok=True)
    lines = kept.read(args.against) if args.against else []
    subjects = _subjects(args, config)
    console = shared.start(cached=False)  # compile times are what is measured
    measured: list[Row] = []
    with peer.start_all(args.vs) if args.vs else contextlib.nullcontext([]) as workers:
        for make in subjects:
            setup = make()
            for what in args.what:
                with console.status(f"{setup.config.model}: {what}", refresh_per_second=1):
                    found = _measure(args, setup, what, workers, console)
                for row in found:
                    measured.append(row)
                    if args.csv:
                        kept.append(args.csv, row)
    show.rows(console, measured)
    if not args.against:
        return 0
    verdicts = kept.compare(measured, lines, args.tolerance)
    show.verdicts(console, verdicts, f"Against {args.against}", args.tolerance)
    return int(any(verdict.worse for verdict in verdicts))


def _check(parser: shared.Parser, args: Any, rest: list[str]) -> Config | None:
    """The config, if there is one; makes lists of what is separated by commas. InputError for what does not fit."""
    for name, least in {"batch": 1, "repeats": 1, "tolerance": 0}.items():
        if (value := getattr(args, name)) is not None and not least <= value < float("inf"):
            raise InputError(f"--{name}={value}: expected at least {least}")
    default = "input,loop" if args.config and args.vs else "train,forward"
    args.what = list(dict.fromkeys((default if args.what is None else args.what).split(",")))
    for name in args.what:
        if name not in WHAT:
            raise unknown("--what", name, WHAT)
    if args.config is None:
        if rest:
            parser.error(f"unexpected argument {rest[0]}" + " without --config=FILE" * rest[0].startswith("--config."))
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
                         "steps without their input it compares of models")  # fmt: skip
    config = config_files.read_config(args.config, rest, vars(args))
    config.dtype, config.batch_size = args.dtype or config.dtype, args.batch or config.batch_size
    return check(config)


def _subjects(args: Any, config: Config | None) -> list[Any]:
    """A function for each network that makes it, and where its batches come from; names are checked at once."""
    from cnnjax import spec
    from cnnjax.bench import measure
    from cnnjax.models import MODELS, create_model

    if config is not None:
        return [lambda: measure.of_config(config, args.data_dir)]
    subjects = []
    for text in args.models or ZOO:
        name = spec.parse(text).name
        if name not in MODELS:
            raise unknown("model", name, MODELS)
        classes, shape = MODELS[name].num_classes, shared.image_shape(args.input, MODELS[name].input_shape)
        create_model(text, classes)
        batch = args.batch or ZOO.get(name) or (128 if shape[0] * shape[1] <= 64 * 64 else 16)
        given = (text, classes, shape, batch, args.dtype or "float32")
        subjects.append(lambda given=given: measure.of_model(*given))
    return subjects


def _measure(args: Any, setup: "Setup", what: str, workers: Any, console: "Console") -> list["Row"]:
    """The rows of one thing to measure; two for 'start'."""
    from cnnjax.bench import measure, rows, show, start, timeline

    if what == "start":
        with tempfile.TemporaryDirectory(prefix="cnnjax-cache-") as cache:
            times = [start.seconds(setup.config, args.data_dir, pathlib.Path(cache)) for _ in range(args.repeats + 1)]
        found = [rows.new(setup.config, setup.source.shape, name) for name in ("start_cold", "start_warm")]
        for row, some in zip(found, (times[:1], times[1:]), strict=True):
            rows.add_times(row, some)
        return found
    row = rows.new(setup.config, setup.source.shape, what)
    if what == "input":
        _add_times(args, setup, row, measure.input_run(setup), 0, workers, console)
        return [row]
    program = measure.compile_step(setup, "train" if what == "memory" else what)
    row.compile_seconds, row.memory_bytes = program.compile_seconds, program.memory_bytes
    if what == "memory":
        return [row]
    _add_times(args, setup, row, program.run, program.params, workers, console)
    flops, most = measure.step_flops(setup, what), measure.peaks(setup.config.dtype)
    row.flops_per_second = flops * (row.steps_per_second or 0)
    row.roofline = row.flops_per_second / measure.roofline(flops, program.bytes_accessed, most)
    if args.profile:
        folder = args.profile / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', setup.config.model)}-{what}"
        totals, idle = timeline.record(folder, program.run, program.text)
        show.profile(console, f"{setup.config.model} {what}, batch {setup.config.batch_size}", totals, idle)
        console.print(f"the trace is in {folder}, for TensorBoard or Perfetto", soft_wrap=True)
    return [row]


def _add_times(
    args: Any, setup: "Setup", row: "Row", run: "Run", params: int, workers: Any, console: "Console"
) -> None:
    """Enters our seconds of a step, block by block; with workers in turns with theirs, and how they compare."""
    from cnnjax.bench import measure, peer, rows

    with tempfile.TemporaryDirectory(prefix="cnnjax-bench-") as folder:
        data = peer.export(pathlib.Path(folder), setup.config, args.data_dir) if workers and args.config else None
        built = peer.build(workers, setup, row.what, params, args.vs_compile, data) if workers else None
        if built is None:
            if workers:
                console.print(f"{row.model}: --vs has no such network to compare with; measured alone")
            rows.add_times(row, measure.blocks(run, args.repeats))
            return
        theirs, row.peer = built
        times, others = peer.interleave(run, theirs, args.repeats)
    rows.add_times(row, times)
    rows.add_ratios(row, times, others)
