"""`cnnjax visualize`: draws a network's filters, feature maps and explanations."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cnnjax.cli import shared
from cnnjax.errors import InputError
from cnnjax.visualize.kinds import KINDS, default_kinds

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.evaluation.trained import TrainedNetwork
    from cnnjax.visualize.files import Picture
    from cnnjax.visualize.kinds import Pictures, Request, Result

    Draw = Callable[..., Iterator[tuple[str, str, Result]]]
    Made = Iterator[tuple[Picture, Callable[[pathlib.Path, str], pathlib.Path]]]

Log = Callable[[str], None]


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax visualize` to its parser."""
    parser.usage = "cnnjax visualize RUN|NAME|FILE [IMAGE ...] [--what=KIND,...] [--to=DIR] [FLAGS]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _describe_kinds()
    shared.add_network_flags(parser, images="images: files and folders (default: a few examples of the data set)")
    parser.add_argument(
        "--what", metavar="KIND,...", default="",
        help=f"kinds of pictures, with arguments if needed: 'maps(order=\"index\")' (default: "
        f"{','.join(default_kinds())})",
    )  # fmt: skip
    parser.add_argument(
        "--to", metavar="DIR", default="pictures", help="folder for the pictures; created if needed (default: pictures)"
    )
    parser.add_argument("--layer", default="", help="layer to look at (default: the kind's choice)")
    parser.add_argument("--channel", type=int, metavar="N", help="channel of the layer (default: the kind's choice)")
    parser.add_argument(
        "--class", dest="class_name", metavar="CLASS", default="",
        help="name or number of a class to explain (default: the kind's choice)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", metavar="all|N,...", default="",
        help="animate the pictures over these checkpoints of the run, as GIF and WebP on one color scale",
    )  # fmt: skip
    parser.add_argument("--dataset", metavar="NAME", default="", help="data set of the examples (default: the run's)")
    parser.add_argument("--split", default="", help="split of the examples (default: the run's test_split)")
    parser.add_argument(
        "--examples", type=int, default=4, metavar="N", help="number of examples, if no images are given (default: 4)"
    )
    shared.add_preprocessing_flags(parser)
    shared.add_data_dir_flag(parser)


def _describe_kinds() -> str:
    """Returns the list of the kinds for --help."""
    rows = [f"  {name:16} {kind.help} ({_needs(kind.needs)})" for name, kind in KINDS.items()]
    return "\n".join(["kinds of pictures, and what each is drawn from:", *rows])


def _needs(needs: str) -> str:
    """Returns in words what a kind needs."""
    return {"network": "the network", "images": "each image", "data set": "a whole split"}[needs]


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax visualize`: writes the pictures and an index, and prints a line for each.

    `overrides` is empty. Returns the exit status.
    """
    source = shared.take_network(args, takes_images=True)
    if args.steps and not args.workdir:
        raise InputError(f"--steps={args.steps} is for the checkpoints of a run; {source} has one set of weights")

    console = shared.setup_jax()
    import jax

    from cnnjax.visualize import files, frames, kinds

    is_leader = jax.process_index() == 0
    log: Log = console.print_line if is_leader else lambda line: None
    bound, folder = kinds.bind(args.what), pathlib.Path(args.to)
    _check_flags(args, [*bound])
    steps = frames.parse_steps(args.steps, pathlib.Path(args.workdir)) if args.steps else []
    net = _load(args, source, str(steps[-1]) if steps else args.step, log)
    request = _request(args, net, [*bound], log)
    files.make_folder(folder)
    pictures: list[files.Picture] = []
    try:
        with _Progress(console, is_leader) as progress:
            request = dataclasses.replace(request, progress=progress.within)
            draw = functools.partial(_draw, bound, progress=progress, may_skip=not args.what, log=log)
            made = _stills(source, request, draw) if not steps else _frames(args, source, steps, request, draw, log)
            for picture, save in made:
                if is_leader:
                    path = save(folder, picture.name)
                    log(f"{path}: {picture.note}" if picture.note else str(path))
                pictures.append(picture)
    finally:  # what is written is listed, also when a later kind fails
        if pictures and is_leader:
            log(f"all are shown in {files.write_index(folder, pictures)}")
    return 0 if pictures else 1


def _stills(source: str, request: "Request", draw: "Draw") -> "Made":
    """Yields each picture of one network, with the function (folder, name) that saves it."""
    from cnnjax.visualize import files, inputs

    step = request.net.step
    for kind, stem, result in draw(request=request):
        name = inputs.file_name(f"{kind}-{stem}" if stem else kind)
        picture = files.Picture(name, kind, f"{source}, step {step}" if step else source, result.note)
        yield picture, functools.partial(files.save, result)


def _frames(
    args: argparse.Namespace, source: str, steps: list[int], request: "Request", draw: "Draw", log: Log
) -> "Made":
    """Yields each animation over the checkpoints `steps`, as `_stills` does pictures."""
    from cnnjax.visualize import files, inputs

    series: dict[tuple[str, str], dict[int, Result]] = {}
    for step in steps:
        net = request.net if step == steps[-1] else _load(args, source, str(step), log)
        for kind, stem, result in draw(request=dataclasses.replace(request, net=net, is_frame=True)):
            series.setdefault((kind, stem), {})[step] = result
    for (kind, stem), results in series.items():
        name = inputs.file_name("-".join(filter(None, (kind, stem, "steps"))))
        note = f"{len(results)} frames, steps {min(results)} to {max(results)}; the last: {results[max(results)].note}"
        picture = files.Picture(name, kind, source, note, files.FRAMES_SUFFIXES)
        yield picture, functools.partial(files.save_frames, results)


def _draw(
    bound: Mapping[str, "Callable[..., Pictures]"], request: "Request", progress: "_Progress", may_skip: bool, log: Log
) -> Iterator[tuple[str, str, "Result"]]:
    """Yields (kind, stem, result) of each picture.

    A kind that does not fit the network raises InputError or, with `may_skip`, is left out after a line to `log`.
    """
    for kind, draw in bound.items():
        progress.begin(kind)
        try:
            for stem, result in draw(request=request):
                yield kind, stem, result
        except InputError as error:
            if not may_skip:
                raise
            log(f"{kind} is left out: {error}")


def _check_flags(args: argparse.Namespace, names: list[str]) -> None:
    """Raises InputError for --layer, --channel or --class if none of the kinds called `names` uses it."""
    given = {"layer": args.layer or None, "channel": args.channel, "class_index": args.class_name or None}
    for field, value in given.items():
        users = [name for name, kind in KINDS.items() if field in kind.uses]
        if value is not None and not set(users) & set(names):
            flag = field.removesuffix("_index")
            raise InputError(f"--{flag}={value}: {', '.join(names)} do not use it; kinds that do: {', '.join(users)}")


def _load(args: argparse.Namespace, source: str, step: str, log: Log) -> "TrainedNetwork":
    """Loads the network with the variables of a checkpoint and the preprocessing of the flags."""
    from cnnjax import pretrained
    from cnnjax.evaluation.recipe import with_views
    from cnnjax.evaluation.trained import restore

    loaded = pretrained.load(source, shared.file_options(args), log)
    views = with_views(loaded.config, batch_size=args.batch_size, preprocess=args.preprocess)
    return restore(loaded.replace(config=views), step, log)


def _request(args: argparse.Namespace, net: "TrainedNetwork", names: list[str], log: Log) -> "Request":
    """Loads the images that the kinds called `names` need; returns the request to all of them."""
    from cnnjax.data.build import load
    from cnnjax.visualize import inputs
    from cnnjax.visualize.kinds import Request
    from cnnjax.visualize.names import class_index

    chosen_class = class_index(net, args.class_name) if args.class_name else None
    config, is_own = net.config, args.dataset in ("", net.config.dataset)
    split = args.split or (is_own and config.test_split) or "test"

    def open_split() -> Any:
        if not (dataset := args.dataset or config.dataset):
            raise InputError("the weights name no data set: give images, or --dataset=NAME")
        return load(dataset, split, args.data_dir, log)

    images = inputs.Images()
    if any(KINDS[name].needs == "images" for name in names):
        if args.words:
            images = inputs.read_files(args.words, net.data, log)
        else:
            images = inputs.choose_examples(open_split(), args.examples)
            log(f"images: {', '.join(images.names)} of {args.dataset or config.dataset} {split}")
    return Request(
        net, images.images, images.names, images.labels, open_split,
        layer=args.layer, channel=args.channel, class_index=chosen_class,
    )  # fmt: skip


class _Progress:
    """Context manager that shows on a terminal which kind of picture is being drawn, and for how long."""

    def __init__(self, console: "Console", is_leader: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
        self.live = Progress(*columns, console=console, transient=True, disable=not (is_leader and console.is_terminal))

    def __enter__(self) -> "_Progress":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def begin(self, kind: str) -> None:
        """Shows the name of the kind that is drawn next, in place of the last one."""
        for task in self.live.task_ids:
            self.live.remove_task(task)
        self.task = self.live.add_task(kind, total=None)

    def within(self, done: int, total: int) -> None:
        """Shows that `done` of `total` steps of the current picture are done; see `kinds.Request.progress`."""
        self.live.update(self.task, completed=done, total=total)
