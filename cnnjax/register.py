"""Code of your own, from outside the package: networks, operations, optimizers, losses and more, under names of yours.

A Python file registers what it defines, and is named by `--import=FILE` on the command line or imported in Python:

    @cnnjax.register_model("tiny", input_shape=(28, 28, 1))
    class Tiny(flax.linen.Module): ...

A run's folder keeps a copy of each such file. It is never run from there: a later command says which one it needs.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from cnnjax.errors import InputError

FOLDER = "imports"  # in a run's folder: the copies, and imports.json

T = TypeVar("T", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Import:
    """A file or module that this process has imported by `import_code`."""

    name: str  # as it was given: 'my_net.py' or 'my_package.nets'
    path: pathlib.Path  # of the source
    digest: str  # SHA-256 of the source


_imports: dict[str, Import] = {}


def import_code(name: str) -> None:
    """Imports a Python file ('my_net.py') or an installed module ('my_package.nets'), once.

    Raises InputError when it does not exist or fails.
    """
    if name in _imports:
        return
    path = pathlib.Path(name)
    try:
        if path.suffix == ".py":
            if not path.is_file():
                raise InputError("there is no such file")
            module_name = f"cnnjax_import_{path.stem}"
            module_spec = importlib.util.spec_from_file_location(module_name, path)
            assert module_spec is not None
            assert module_spec.loader is not None
            module = importlib.util.module_from_spec(module_spec)
            sys.modules[module_name] = module
            module_spec.loader.exec_module(module)
        else:
            path = pathlib.Path(importlib.import_module(name).__file__ or "")
    except Exception as error:  # the code may raise anything
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"--import={name}: {kind}{error}") from error
    _imports[name] = Import(name, path.resolve(), _digest(path))


def flags() -> list[str]:
    """Returns the flags that make another `cnnjax` process import the same code."""
    return [f"--import={entry.path if entry.path.suffix == '.py' else entry.name}" for entry in _imports.values()]


def keep_copies(folder: pathlib.Path) -> None:
    """Copies the source of everything imported into a run's folder, with its digest."""
    if not _imports:
        return
    copies = folder / FOLDER
    copies.mkdir(parents=True, exist_ok=True)
    entries = []
    for entry in _imports.values():
        shutil.copyfile(entry.path, copies / entry.path.name)
        entries.append({"name": entry.name, "file": entry.path.name, "digest": entry.digest})
    (copies / "imports.json").write_text(json.dumps(entries, indent=2) + "\n")


def check_imports(folder: pathlib.Path) -> None:
    """Raises InputError when a run's folder was made with code that this process has not imported, or has changed."""
    path = folder / FOLDER / "imports.json"
    if not path.is_file():
        return
    try:
        entries = json.loads(path.read_text())
        needed = {entry["digest"]: (entry["name"], entry["file"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    have = {entry.digest for entry in _imports.values()}
    for digest, (name, file) in needed.items():
        if digest in have:
            continue
        copy = folder / FOLDER / file
        if name in _imports or any(entry.path.name == file for entry in _imports.values()):
            raise InputError(f"{name} is not the code that {folder} was trained with: its copy is {copy}")
        raise InputError(f"{folder} needs --import={name}; its copy is {copy}")


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------- decorators


def _add(kind: str, table: MutableMapping[str, Any], name: str, entry: Any) -> None:
    """Adds an entry to a table. Raises InputError for a name that is taken, or cannot stand in a call string."""
    if not name.isidentifier():
        raise InputError(f"{kind} {name!r}: expected a name of letters, digits and underscores, as in 'tiny_net'")
    if name in table:
        raise InputError(f"there is a {kind} {name!r} already; choose another name")
    table[name] = entry


def _decorator(kind: str, table: MutableMapping[str, Any], name: str) -> Callable[[T], T]:
    def add(function: T) -> T:
        _add(kind, table, name, function)
        return function

    return add


def register_model(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int = 1000, paper: str = "", year: int = 0
) -> Callable[[T], T]:
    """Registers a Flax module, or a function that builds one, as a network for `model=`.

    Its fields are the arguments of the call string. It is given `num_classes` and `dtype` where it declares them, and
    called as `module(images, train=...)`. `input_shape` [H, W, C] and `num_classes` are the defaults of `summary`.
    """
    from cnnjax.models import MODELS
    from cnnjax.models.network import Variant

    def add(build: T) -> T:
        row = Variant(build, f"{paper}, {year}" if year else paper, input_shape, num_classes, {}, params=0, macs=0)
        _add("model", MODELS, name, row)
        return build

    return add


def register_augmentation(name: str, stage: str = "step") -> Callable[[T], T]:
    """Registers an operation for `augment=` and `preprocess=`.

    `stage` is 'step' for `(key, image float32 [H, W, C] in [0, 1], ...) -> image` in the compiled step, 'batch' for
    `(key, images, target, ...) -> (images, target)`, or 'host' for `(image uint8 [H, W, C], rng, ...) -> image`.
    """
    from cnnjax.augment import MIXING, OPS
    from cnnjax.data.transforms import HOST_OPS

    tables: dict[str, MutableMapping[str, Any]] = {"step": OPS, "batch": MIXING, "host": HOST_OPS}
    if stage not in tables:
        raise InputError(f"register_augmentation: stage = {stage!r}; valid: {', '.join(tables)}")
    return _decorator("operation", tables[stage], name)


def register_optimizer(name: str) -> Callable[[T], T]:
    """Registers a function of its settings that returns an optax transformation, for `optimizer=`.

    It is given `weight_decay`, a transformation that adds the decay, where it declares that. It does not apply the
    learning rate.
    """
    from cnnjax.optim import OPTIMIZERS

    return _decorator("optimizer", OPTIMIZERS, name)


def register_schedule(name: str) -> Callable[[T], T]:
    """Registers a function of its settings that returns an optax schedule from 0 to 1, for `schedule=`.

    It is given `steps`, which converts a duration to steps, and `total`, the steps of the training, where it declares
    them.
    """
    from cnnjax.optim import SCHEDULES

    return _decorator("schedule", SCHEDULES, name)


def register_loss(name: str) -> Callable[[T], T]:
    """Registers a function `(logits [N, K], target [N, K], ...) -> [N]` in float32, for `loss=`."""
    from cnnjax.losses import LOSSES

    return _decorator("loss", LOSSES, name)


def register_metric(metric: Any) -> Any:
    """Registers a `cnnjax.metrics.Metric`: it is then logged, shown and can select the best checkpoint."""
    from cnnjax.metrics import METRICS

    _add("metric", METRICS, metric.name, metric)
    return metric


def register_dataset(name: str, entry: Any, reader: Callable[..., Any] | None = None) -> None:
    """Registers a `cnnjax.data.catalog.Entry`, so that `cnnjax data build NAME` can make the data set.

    `reader` is the function that reads the original files, under the name entry.reader, unless that exists already.
    """
    from cnnjax.data.catalog import DATASETS
    from cnnjax.data.readers import READERS

    if reader is not None:
        _add("reader", READERS, entry.reader, reader)
    _add("data set", DATASETS, name, entry)


def imported() -> Sequence[Import]:
    """Returns what this process has imported by `import_code`."""
    return tuple(_imports.values())
