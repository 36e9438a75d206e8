"""The files of an evaluation of robustness: robustness.json, CSV tables and figures in the run's folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import pretrained, sealed, style
from cnnjax.colors import BLUE, MUTED, VERMILION
from cnnjax.data import corruptions
from cnnjax.data.build import Split, load
from cnnjax.data.corruptions import CORRUPTIONS
from cnnjax.errors import InputError
from cnnjax.evaluation import report
from cnnjax.evaluation.evaluate import choose_split, matching_classes
from cnnjax.evaluation.host_images import apply_operations
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.evaluation.robustness import (
    CLEAN,
    SEED,
    CorruptionErrors,
    RelativeErrors,
    ShiftConsistency,
    VariantScorer,
    check_reference,
    corruption_errors,
    relative_to,
    shift_consistency,
)

EXAMPLE_SEVERITIES = (1, 3, 5)  # shown of each corruption
EXAMPLE_COLUMNS = 3
RELATIVE = ("reference", "mce", "relative_mce")  # entries of robustness.json, with a reference


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Holds the results of `evaluate_robustness`; None for what was not evaluated.

    Attributes:
      folder: where the files are.
      corruptions: errors on corrupted images.
      relative: the same, relative to a reference.
      shifts: consistency under shifts.
    """

    folder: pathlib.Path
    corruptions: CorruptionErrors | None
    relative: RelativeErrors | None
    shifts: ShiftConsistency | None


def evaluate_robustness(
    network: pretrained.LoadedNetwork,
    workdir: pathlib.Path | str,
    *,
    corrupt: str = "",
    severity: str = "",
    shift: int = 0,
    reference: str = "",
    dataset: str = "",
    split: str = "",
    match_classes: str = "",
    step: str | int = "last",
    data_dir: str = "",
    mesh: Mesh | None = None,
    description: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> Robustness:
    """Evaluates a network on corrupted and on shifted images, and writes the results below `workdir`/evaluations.

    Args:
      network: a network with trained weights.
      workdir: folder of the run.
      corrupt: corruptions and groups of them, as in 'all', 'noise,fog' or 'all,extra'; '' for none.
      severity: '' for 1 to 5, or some of them, as in '1,3'.
      shift: evaluate shifts of up to this many pixels; 0 for none.
      reference: 'alexnet', or the corruptions.csv of another network, by which errors are also divided; '' for none.
      dataset: '' for the network's own.
      split: '' for config.test_split, or for the validation split if there is none.
      match_classes: how to match classes if they are not the network's: see `evaluate.matching_classes`.
      step: the checkpoint: 'last', 'best' or a number.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for all.
      description: further options to record, such as {"init": ...}.
      log: called with lines of text.

    Raises InputError for a name, severity, split, class or reference that does not exist or does not fit.
    """
    names, severities = corruptions.select(corrupt) if corrupt else (), corruptions.parse_severities(severity)
    if not names and not shift:
        raise InputError("nothing to evaluate: give corruptions, as in corrupt='all', or a shift in pixels")
    source = str((description or {}).get("init", workdir))
    dataset, split = choose_split(network.config, source, dataset, split, data_dir)
    examples = load(dataset, split, data_dir)
    indices = matching_classes(examples, source, network.data, match_classes)
    if names and reference:  # a wrong reference fails at once
        check_reference(reference, dataset, examples.classes)
        zeros = np.zeros((len(names), len(severities)))
        relative_to(CorruptionErrors(names, severities, zeros, 0.0, 0), reference)
    scorer = VariantScorer(network, examples, step=step, mesh=mesh, log=log)
    errors = corruption_errors(scorer, indices, names, severities, log) if names else None
    result = Robustness(
        pathlib.Path(),
        errors,
        relative_to(errors, reference) if errors and reference else None,
        shift_consistency(scorer, indices, shift, log) if shift else None,
    )
    options = {"corrupt": corrupt, "severity": severity, "shift": shift}
    given = {name: value for name, value in options.items() if value}
    subject = {"dataset": dataset, "split": split, "step": scorer.step, **(description or {}), **given}
    return _write(result, pathlib.Path(workdir), subject, network, examples)


def _write(
    result: Robustness,
    workdir: pathlib.Path,
    subject: dict[str, Any],
    network: pretrained.LoadedNetwork,
    examples: Split,
) -> Robustness:
    """Writes the files, and returns the result with its folder. Only process 0 writes.

    Without a reference, the relative errors in an earlier robustness.json of the same errors are kept.
    """
    folder = workdir / "evaluations" / report.folder_name(**subject)
    title = report.title(subject)
    if jax.process_index() == 0:
        sealed.check_no_link(folder.parent)
        with sealed.replacing_folder(folder) as new:
            content = dict(subject)
            if errors := result.corruptions:
                content |= _summary(errors, result.relative)
                content = _earlier_relative(folder / "robustness.json", content) | content
                report.write_csv(new / "corruptions.csv", _table(errors))
                style.save(corruption_figure(errors, title), new / "corruptions")
                style.save(example_sheet(network, examples, errors, title), new / "examples", (".png",))
            if shifts := result.shifts:
                content |= {"count": shifts.count, "consistency": shifts.consistency}
                columns = {"pixels": range(len(shifts.accuracy)), "accuracy": shifts.accuracy}
                report.write_csv(new / "shifts.csv", {**columns, "agreement": shifts.agreement})
                style.save(shift_figure(shifts, title), new / "shifts")
            sealed.write_plain_json(new / "robustness.json", content | {"folder": str(folder)})
    return dataclasses.replace(result, folder=folder)


def _summary(errors: CorruptionErrors, relative: RelativeErrors | None) -> dict[str, Any]:
    """Returns the entries of robustness.json about corruptions."""
    content: dict[str, Any] = {"count": errors.count, "clean_error": errors.clean, "mean_corruption_error": errors.mean}
    content["errors"] = dict(zip(errors.names, errors.errors.tolist(), strict=True))
    if relative:
        content |= dict(zip(RELATIVE, (relative.reference, relative.mce, relative.relative_mce), strict=True))
    return content


def _earlier_relative(path: pathlib.Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries RELATIVE of an earlier robustness.json; {} if there is none, or of other errors."""
    try:
        earlier = report.read(path)
    except (FileNotFoundError, InputError):
        return {}
    if any(earlier.get(name) != content[name] for name in ("count", "clean_error", "errors")):
        return {}
    return {name: earlier[name] for name in RELATIVE if name in earlier}


def _table(errors: CorruptionErrors) -> dict[str, list[Any]]:
    """Returns the columns of corruptions.csv. The first row has the error on the unchanged images."""
    rows = [(CLEAN, "", 0, errors.clean)]
    for name, values in zip(errors.names, errors.errors, strict=True):
        pairs = zip(errors.severities, values, strict=True)
        rows += [(name, CORRUPTIONS[name].group, severity, float(value)) for severity, value in pairs]
    names = ("corruption", "group", "severity", "error")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


# ------------------------------------------------------------------------------------------------------------- figures


@style.house()
def corruption_figure(errors: CorruptionErrors, title: str) -> Any:
    """Draws the error by severity, a panel per group of corruptions and a line per corruption, from the clean error."""
    by_group: dict[str, list[int]] = {}
    for row, name in enumerate(errors.names):
        by_group.setdefault(CORRUPTIONS[name].group, []).append(row)
    columns = min(len(by_group), 2 if len(by_group) in (2, 4) else 3)
    rows = -(-len(by_group) // columns)
    figure = style.new_figure(style.FULL_WIDTH, style.SLIDE_HEIGHT if rows == 1 else 5.5)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    highest = max(100 * float(errors.errors.max()), 1.0)
    for number, axes in enumerate(panels.ravel()):
        if number >= len(by_group):
            axes.set_visible(False)
            continue
        group, members = list(by_group.items())[number]
        axes.axhline(100 * errors.clean, color=MUTED, linewidth=0.8, linestyle=":", label="_clean")
        for index, row in enumerate(members):
            values = [100 * errors.clean, *(100 * errors.errors[row])]
            label = errors.names[row].replace("_", " ").removesuffix(f" {group}")
            axes.plot([0, *errors.severities], values, marker="o", markersize=3, label=label, **style.line_style(index))
        axes.set(title=group, xticks=[0, *errors.severities], ylim=(0, 1.05 * highest))
        if number >= len(by_group) - columns:
            axes.set_xlabel("severity (0: unchanged)")
        if number % columns == 0:
            axes.set_ylabel("error, %")
        style.label_lines(axes)
    note = (
        f"{title}: clean error {errors.clean:.2%} (dotted); mean corruption error {errors.mean:.2%} (not normalized); "
        f"{errors.count:,} images."
    )
    style.set_title(figure, "Errors on corrupted images", note)
    return figure


@style.house()
def shift_figure(shifts: ShiftConsistency, title: str) -> Any:
    """Draws accuracy and agreement with the unshifted image by the length of the shift."""
    figure = style.new_figure()
    axes = figure.add_subplot(xlabel="shift, pixels (mean of up, down, left, right)", ylabel="images, %")
    pixels = np.arange(len(shifts.accuracy))
    for values, label, color in (
        (shifts.agreement, "same class as\nunshifted", BLUE),
        (shifts.accuracy, "right class", VERMILION),
    ):
        axes.plot(pixels, 100 * values, marker="o", markersize=4, color=color, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    style.label_lines(axes)
    note = (
        f"{title}: consistency {shifts.consistency:.2%} (equal predictions, over all pairs of shifts); "
        f"{shifts.count:,} images."
    )
    style.set_title(figure, "Predictions on shifted images", note)
    return figure


def example_sheet(network: pretrained.LoadedNetwork, examples: Split, errors: CorruptionErrors, title: str) -> Any:
    """Draws the first image of the split under every corruption, beside the original."""
    operations = parse_eval_recipe(network.config).operations.host
    image = apply_operations(examples.read(np.array([0]))[0][0], operations)
    shown = [severity for severity in EXAMPLE_SEVERITIES if severity in errors.severities] or list(errors.severities)
    strips, captions = [], []
    gap = np.full((image.shape[0], max(1, image.shape[1] // 16), image.shape[2]), 255, np.uint8)
    for name in errors.names:
        versions = [image]
        for severity in shown:
            rng = np.random.Generator(np.random.Philox(key=np.array([SEED, 0], np.uint64)))
            versions += [gap, corruptions.corrupt(image, rng, name, severity)]
        strips.append(np.concatenate(versions, axis=1))
        captions.append(name.replace("_", " "))
    note = f"{title}: the first image. Each strip: unchanged, then severity {', '.join(map(str, shown))}."
    columns = min(EXAMPLE_COLUMNS, len(strips))
    return style.sheet(strips, captions, columns=columns, title="Corruptions", note=note, cell=2.5)
