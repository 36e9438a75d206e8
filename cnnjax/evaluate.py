"""Scores a network on a split, every example exactly once, and reports it as a table, files and a picture."""

import contextlib
import csv
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, checkpoint, config, losses, metrics, sharding
from cnnjax import workdir as workdirs
from cnnjax.data import pipeline
from cnnjax.data.build import Split, load
from cnnjax.errors import InputError, unknown
from cnnjax.models import create_model
from cnnjax.state import Tree, variables_of

EvalStep = Callable[[Tree, pipeline.Batch], dict[str, jax.Array]]


# What a network is shown of an image: the mean of its logits counts.
PROTOCOLS: dict[str, Callable[[jax.Array], Sequence[jax.Array]]] = {
    "single": lambda images: [images],
    "flip": lambda images: [images, images[:, :, ::-1]],
}


def eval_step(
    variables: Tree, batch: pipeline.Batch, *, model: nn.Module, prepare, loss, protocol: str
) -> dict[str, jax.Array]:
    """The sums of `metrics.sums` and the confusion matrix over one batch; padding does not count."""
    views = PROTOCOLS[protocol](prepare(jax.random.key(0), batch["image"]))
    each: list[Any] = [model.apply(variables, view, train=False) for view in views]
    logits: Any = sum(each) / len(each)
    sums = metrics.sums(logits, batch["label"], loss(logits, batch["label"]), batch["mask"])
    return sums | {"confusion": metrics.confusion(logits, batch["label"], batch["mask"])}


def make_eval_step(model: nn.Module, prepare, loss, protocol: str, mesh: Mesh) -> EvalStep:
    """`eval_step`, compiled for the mesh: variables stay where they are, batches are divided among the devices."""
    return jax.jit(
        functools.partial(eval_step, model=model, prepare=prepare, loss=loss, protocol=protocol),
        in_shardings=(None, sharding.split(mesh)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(),
    )


@contextlib.contextmanager
def naming(model: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turns the failure of a network on images of this shape into an InputError; each layer has its own way to fail."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{model!r} does not take images of {shape}: {reason}") from error


def make_scorer(
    settings: config.Config, known: dict[str, Any], examples: Split, model: nn.Module, mesh: Mesh
) -> Callable[[Tree], metrics.Sums]:
    """The function from variables to the sums over all of `examples`, seen as the settings have it.

    `known` is what a run's data.json holds of the training split. Raises InputError when the images do not fit.
    """
    if settings.protocol not in PROTOCOLS:
        raise unknown("protocol", settings.protocol, PROTOCOLS)
    host_ops, step_ops = pipeline.split_ops(settings.preprocess)
    source = pipeline.open_source(examples, host_ops, cache=settings.cache, seed=settings.seed, mesh=mesh)
    if source.shape[-1] != known["shape"][-1]:
        raise InputError(f"the images of {examples.name} are {source.shape}; the network learnt from {known['shape']}")
    if list(source.shape) != known["shape"]:
        sizes = [jax.ShapeDtypeStruct((1, *shape), np.float32) for shape in (known["shape"], source.shape)]
        with naming(settings.model, source.shape):
            variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sizes[0])
            jax.eval_shape(functools.partial(model.apply, train=False), variables, sizes[1])
    prepare = augment.build(step_ops, settings.normalize, known["mean"], known["std"], source.shape)
    step = make_eval_step(model, prepare, losses.build(settings.loss), settings.protocol, mesh)

    def score(variables: Tree) -> metrics.Sums:
        batches = pipeline.eval_batches(source, batch_size=settings.eval_batch_size, mesh=mesh)
        waiting, done = [], []
        for batch in batches:
            waiting.append(step(variables, batch))
            if len(waiting) > 2:  # fetched two batches late, so that the device always has the next one
                done.append(jax.device_get(waiting.pop(0)))
        return metrics.add(done + jax.device_get(waiting))

    return score


def restore(
    workdir: pathlib.Path,
    settings: config.Config,
    known: dict[str, Any],
    model: nn.Module,
    mesh: Mesh,
    step: str,
    say: Callable[[str], None],
) -> tuple[int, Tree]:
    """The step of a checkpoint of a run and the variables that its network is evaluated with, on the mesh."""
    image = np.zeros((1, *known["shape"]), np.float32)
    model_state = dict(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image))
    params = model_state.pop("params")
    target = {"params": params, "model_state": model_state, "ema": params if settings.ema else {}}
    target = sharding.placed(target, sharding.of_state(target, mesh))
    number, found = checkpoint.restore_model(workdir, target, step, say)
    return number, variables_of(**found)


def evaluate(
    workdir: pathlib.Path,
    *,
    step: str = "last",
    dataset: str = "",
    split: str = "",
    batch_size: int = 0,
    preprocess: str | None = None,
    data_dir: str = "",
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Restores a checkpoint of a run and scores it; everything else comes from the run's folder.

    Without a `dataset` and `split` these are the run's own test split, and `preprocess` is its config's. Returns what
    `evaluations/.../metrics.json` holds. Raises InputError for a folder, step, data set or split that does not exist or
    does not fit.
    """
    settings = config.load(workdir / "config.json")
    settings.cache, settings.eval_batch_size = "host", batch_size or settings.eval_batch_size
    known = workdirs.read_json(workdir / "data.json")
    of = {}
    if preprocess not in (None, settings.preprocess):
        settings.preprocess = of["preprocess"] = preprocess
    name, split = dataset or settings.dataset, split or settings.test_split or settings.val_split
    if not split:
        raise InputError(f"{workdir} has no test_split in its config; give --split")
    mesh = mesh or sharding.make_mesh()
    examples = load(name, split, data_dir)
    if len(examples.classes) != len(known["classes"]):
        raise InputError(
            f"{name} has {len(examples.classes)} classes; the network of {workdir} {len(known['classes'])}"
        )
    model = create_model(settings.model, len(known["classes"]), settings.dtype)
    score = make_scorer(settings, known, examples, model, mesh)

    number, variables = restore(workdir, settings, known, model, mesh, step, say)
    total = score(variables)
    return report(total, workdir, {"dataset": name, "split": split, "step": number, **of}, examples.classes)


def report(total: metrics.Sums, workdir: pathlib.Path, of: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """Writes metrics.json, per_class.csv, confusion.csv and confusion.png; returns what metrics.json holds."""
    matrix = total["confusion"]
    counts = {"count": int(total["count"]), "top1_right": int(total["top1"]), "top5_right": int(total["top5"])}
    seen = f"-{of['preprocess']}" if "preprocess" in of else ""
    name = re.sub(r"[^\w.-]+", "_", f"{of['dataset']}-{of['split']}-step{of['step']}{seen}")
    folder = workdir / "evaluations" / name
    right, images = matrix.diagonal(), matrix.sum(axis=1)
    per_class = {c: int(r) / int(n) if n else None for c, r, n in zip(classes, right, images, strict=True)}
    result = {**of, **metrics.means(total), **counts, "per_class": per_class, "folder": str(folder)}
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        workdirs.write_json(folder / "metrics.json", result | {"confusion": matrix.tolist()})
        _write_csv(folder / "per_class.csv", ["class", "images", "right", "accuracy"],
                   [(c, n, r, per_class[c]) for c, n, r in zip(classes, images, right, strict=True)])  # fmt: skip
        _write_csv(folder / "confusion.csv", ["label \\ prediction", *classes],
                   [(c, *row) for c, row in zip(classes, matrix.tolist(), strict=True)])  # fmt: skip
        _draw(matrix, classes, f"{of['dataset']} {of['split']}, step {of['step']}: {result['accuracy']:.2%}",
              folder / "confusion.png")  # fmt: skip
    return result


def _write_csv(path: pathlib.Path, header: list[str], rows: Iterable[Iterable]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _draw(matrix: np.ndarray, classes: list[str], title: str, path: pathlib.Path) -> None:
    """The confusion matrix, each row as shares of its class; with numbers where there is room for them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= 30
    side = 2.5 + 0.5 * len(classes) if few else 12
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel="prediction", ylabel="label")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the label's images")
    if few:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")  # however long the class names are
