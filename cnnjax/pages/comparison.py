"""The page of several runs: which is best and how sure that is, what differs, curves, and where they disagree."""

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cnnjax import __version__, tables
from cnnjax.errors import InputError
from cnnjax.evaluation import comparison_tables, image_scores
from cnnjax.evaluation.comparison import ComparedRun, Pair, RunComparison, compare
from cnnjax.evaluation.mistakes import disagreements
from cnnjax.pages import curves, page
from cnnjax.pages.charts import Chart, Format
from cnnjax.pages.tiles import Tiles, tiles_of
from cnnjax.register import command_line

MAX_PAIRS = 3  # of runs whose disagreements are shown as pictures
MAX_CLASSES = 20  # in the table of classes
FILE, TEMPLATE = "comparison.html", "comparison.html"
Log = Callable[[str], None]
CURVES: tuple[tuple[str, str, str, Format], ...] = (  # key in metrics.jsonl, title, y axis, its format
    ("train/loss", "Training loss", "loss", "number"),
    ("val/loss", "Validation loss", "loss", "number"),
    ("train/accuracy", "Training accuracy", "accuracy", "percent"),
    ("val/accuracy", "Validation accuracy", "accuracy", "percent"),
    ("train/lr", "Learning rate", "learning rate", "number"),
    ("train/images_per_second", "Speed", "images per second", "integer"),
)


@dataclasses.dataclass(frozen=True)
class RunLink:
    """A run in the list of runs.

    Attributes:
      letter: its letter.
      folder: its folder.
      model: the call string of its network.
      page: name of its own page relative to this one; '' without one.
      command: the command that writes its own page.
    """

    letter: str
    folder: str
    model: str
    page: str
    command: str


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A disagreement between two runs.

    Attributes:
      title: 'A and B'.
      sentence: the outcome of their test.
      counts: table of how many images both, one or none of the two have right.
      images: those that only one of them has right.
    """

    title: str
    sentence: str
    counts: tables.Table
    images: tuple[Tiles, ...]


@dataclasses.dataclass(frozen=True)
class ComparisonPage:
    """Holds what the page of several runs shows.

    Attributes:
      runs: the runs.
      subject: the data set, split and checkpoints of the results; '' without a result.
      sentences: the outcome of each paired test, and why others were not made.
      caveat: what these tests do not say; '' without a test.
      results: table of the results.
      settings: table of the settings and versions that differ.
      charts: the curves of all runs, one chart per metric.
      classes: table of the classes in which the accuracies differ most; None unless the runs have the same classes.
      disagreements: for the pairs of runs that disagree on most images.
      gap: why there are no images; '' if there are some.
      command: the command that prints the comparison in a terminal.
      version: of cnnjax.
      written: date and time.
    """

    runs: tuple[RunLink, ...]
    subject: str
    sentences: tuple[str, ...]
    caveat: str
    results: tables.Table
    settings: tables.Table
    charts: tuple[Chart, ...]
    classes: tables.Table | None
    disagreements: tuple[Disagreement, ...]
    gap: str
    command: str
    version: str
    written: str

    @property
    def title(self) -> str:
        """Returns the title: 'Runs A, B and C compared'."""
        *first, last = (run.letter for run in self.runs)
        return f"Runs {', '.join(first)} and {last} compared"

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yields the id and name of each section."""
        yield "result", "Result"
        yield "settings", "What differs"
        if self.charts:
            yield "curves", "Training"
        if self.classes:
            yield "classes", "By class"
        if self.disagreements:
            yield "images", "Where they disagree"
        yield "runs", "The runs"


def report(
    folders: Sequence[pathlib.Path | str],
    to: pathlib.Path | str = "",
    *,
    data_dir: str = "",
    evaluate: bool = True,
    log: Log = print,
) -> pathlib.Path:
    """Writes the page of several runs.

    Args:
      folders: folders of 2 to 26 runs.
      to: the file, whose name ends in .html; '' for comparison.html in the current folder.
      data_dir: folder of the data sets; '' for the one that each training was given, or else the default one. If a data
        set is not there, its images are not shown.
      evaluate: whether runs without an evaluation of their last checkpoint are evaluated first.
      log: called with lines of text.

    Returns:
      The path of the file.

    Raises:
      InputError: as `evaluation.comparison.compare` does, and for a name that cannot be written.
    """
    path = pathlib.Path(to or FILE)
    page.check_path(path)
    compared = compare(folders, data_dir=data_dir, with_evaluation=evaluate, log=log)
    page.write(path, page.render(TEMPLATE, page=comparison_page(compared, path)))
    return path


def comparison_page(comparison: RunComparison, path: pathlib.Path) -> ComparisonPage:
    """Gathers what the page of several runs shows. `path` is where it will be, for links to the pages of the runs."""
    shown, gap = _disagreements(comparison)
    data_dirs = {run.data_dir for run in comparison.runs}
    links = [
        RunLink(run.letter, str(run.folder), run.config.model, _own_page(run.folder, path),
                command_line("report", str(run.folder), data_dir=run.data_dir))
        for run in comparison.runs
    ]  # fmt: skip
    return ComparisonPage(
        runs=tuple(links),
        subject=comparison_tables.tested_on(comparison),
        sentences=tuple(comparison_tables.sentences(comparison)),
        caveat=comparison_tables.CAVEAT.replace("`", "") if comparison.pairs else "",
        results=comparison_tables.results_table(comparison),
        settings=comparison_tables.settings_table(comparison),
        charts=tuple(charts(comparison.runs)),
        classes=_classes(comparison.runs),
        disagreements=tuple(shown),
        gap=gap,
        command=command_line(
            "compare",
            *(str(run.folder) for run in comparison.runs),
            data_dir=data_dirs.pop() if len(data_dirs) == 1 else "",  # each run has its own, recorded
        ),
        version=__version__,
        written=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    )


def _own_page(folder: pathlib.Path, to: pathlib.Path) -> str:
    """Returns the path of a run's own page relative to the folder of this page; '' if it has none."""
    own = folder / "report.html"
    return os.path.relpath(own.resolve(), to.resolve().parent) if own.exists() else ""


def charts(runs: Sequence[ComparedRun]) -> Iterator[Chart]:
    """Yields a chart for each metric that a run has logged more than once, with a line for each run."""
    for name, title, label, form in CURVES:
        lines = [curves.line(run.lines, name, f"{run.letter} {run.label}", i) for i, run in enumerate(runs)]
        shown = tuple(line for line in curves.present(lines) if len(line.x) > 1)
        if shown:
            yield Chart(title, "epoch", label, shown, y_format=form)


def _classes(runs: Sequence[ComparedRun]) -> tables.Table | None:
    """Builds a table of the accuracy of each run by class, the largest differences first.

    Returns None unless all runs are evaluated on the same classes.
    """
    scores = [run.scores for run in runs if run.scores]
    if len(scores) < len(runs) or any(each.classes != scores[0].classes for each in scores):
        return None
    count = len(scores[0].classes)
    images = [np.bincount(each.labels, minlength=count) for each in scores]
    hits = [np.bincount(each.labels[each.is_correct], minlength=count) for each in scores]
    accuracies = np.array([h / np.maximum(n, 1) for h, n in zip(hits, images, strict=True)])
    spread = np.where(np.min(images, axis=0) > 0, np.ptp(accuracies, axis=0), -1)
    order = [k for k in np.argsort(-spread, kind="stable") if spread[k] >= 0][:MAX_CLASSES]
    rows = [
        [scores[0].classes[k], f"{images[0][k]:,}", *(f"{a[k]:.1%}" for a in accuracies), f"{100 * spread[k]:.1f}"]
        for k in order
    ]
    headings = ("class", "images", *(run.letter for run in runs), "difference (points)")
    return tables.Table(headings, rows, frozenset(("class",)))


def _disagreements(comparison: RunComparison) -> tuple[list[Disagreement], str]:
    """Returns the disagreements of the pairs with most of them, and why there are no images, '' if there are."""
    ranked = sorted(comparison.pairs, key=lambda pair: -(pair.test.only_first + pair.test.only_second))[:MAX_PAIRS]
    shown, gap = [], ""
    for pair in ranked:
        images: tuple[Tiles, ...] = ()
        try:
            images = tuple(_images(comparison.runs, pair))
        except InputError as error:
            gap = f"The images are not shown: {error}"
        a, b = comparison.runs[pair.first].letter, comparison.runs[pair.second].letter
        test = pair.test
        rows = [[f"{a} right", f"{test.both:,}", f"{test.only_first:,}"],
                [f"{a} wrong", f"{test.only_second:,}", f"{test.neither:,}"]]  # fmt: skip
        counts = tables.Table(("images", f"{b} right", f"{b} wrong"), rows, frozenset(("images",)))
        sentence = comparison_tables.pair_sentence(comparison.runs, pair)
        shown.append(Disagreement(f"{a} and {b}", sentence, counts, images))
    return shown, gap


def _images(runs: Sequence[ComparedRun], pair: Pair) -> Iterator[Tiles]:
    """Yields the images that only one of two runs has right. Raises InputError if the data set is not there."""
    first, second = runs[pair.first], runs[pair.second]
    if first.scores and second.scores:
        examples = image_scores.open_images(first.scores, first.data_dir)
        names = (first.letter, second.letter)
        for ranked in disagreements(first.scores, second.scores, examples, names):
            if len(ranked.indices):
                yield tiles_of(ranked)
