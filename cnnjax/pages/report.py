"""Writes the page of a run, of several runs, of a sweep, of a study or of a file of facts."""

import pathlib
from collections.abc import Callable, Sequence

from cnnjax.errors import InputError, missing

Source = pathlib.Path | str


def report(
    source: Source | Sequence[Source],
    to: pathlib.Path | str = "",
    *,
    data_dir: str = "",
    evaluate: bool = True,
    log: Callable[[str], None] = print,
) -> pathlib.Path:
    """Writes a page: one self-contained HTML file.

    Args:
      source: the folder of a run or a sweep; several folders of runs, which are compared; or a study: the folder of its
        runs, its file in experiments/, or one of its reports; or facts, by their file or report.
      to: the file, whose name ends in .html; '' for report.html in the folder, for comparison.html in the current
        folder, or for a page beside the report of a study.
      data_dir: folder of the data sets; '' for the one that the training was given, or else the default one.
      evaluate: whether a run without an evaluation is evaluated, if it has a checkpoint and its data set is there.
      log: called with lines of text.

    Returns:
      The path of the file.

    Raises:
      InputError: a source that is none of these or is damaged, or a name that cannot be written.
    """
    sources = [source] if isinstance(source, (str, pathlib.Path)) else list(source)
    path = pathlib.Path(sources[0] if sources else "")
    if len(sources) != 1:
        from cnnjax.pages import comparison

        return comparison.report(sources, to, data_dir=data_dir, evaluate=evaluate, log=log)
    if (path / "config.json").exists():
        from cnnjax.pages import run

        return run.report(path, to, data_dir=data_dir, evaluate=evaluate, log=log)
    if (path / "sweep.json").exists():
        from cnnjax.pages import sweep  # and Optuna, half a second

        return sweep.report(path, to, log=log)
    from cnnjax.pages import facts, study

    if facts.find_report(path):
        return facts.report(path, to)
    if study.find_report(path):
        return study.report(path, to)
    if not path.exists():
        raise InputError(missing(path))
    raise InputError(
        f"{path} is neither the folder of a run, of a sweep or of a study that has a report, nor a study's report"
    )
