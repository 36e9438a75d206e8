"""Registers your own code from outside the package: networks, operations, optimizers, losses and more, by name.

A Python file registers what it defines, and is named by `--import=FILE` on the command line or imported in Python:

    @cnnjax.register_model("tiny", input_shape=(28, 28, 1))
    class Tiny(flax.linen.Module): ...

A run's folder keeps a copy of each such file. It is never run from there: a later command says which one it needs.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from cnnjax import sealed, shell
from cnnjax.errors import InputError

FOLDER = "imports"  # in a run's folder: the copies, and imports.json

T = TypeVar("T", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Import:
    """A file or module with registered code, as this process has imported it.

    Attributes:
      name: what --import needs: 'my_net.py' or 'my_package.nets'.
      path: absolute path of the source.
      digest: SHA-256 of the source, hexadecimal.
    """

    name: str
    path: pathlib.Path
    digest: str


_imports: dict[pathlib.Path, Import] = {}  # by the path of the source


def import_code(name: str) -> None:
    """Imports a Python file ('my_net.py') or an installed module ('my_package.nets'); a second call does nothing.

    Raises InputError when it does not exist, or raises an exception while being imported.
    """
    if any(entry.name == name for entry in _imports.values()):
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
    _imports[path.resolve()] = Import(name, path.resolve(), _digest(path))


def flags() -> list[str]:
    """Returns the --import flags that make another `cnnjax` process import the same code."""
    return [f"--import={entry.path if entry.name.endswith('.py') else entry.name}" for entry in _imports.values()]


def command_line(*words: str, data_dir: str = "") -> str:
    """Returns the shell command of this program with `words`, which reads the same data and imports the same code.

    `data_dir` is the folder of data sets, '' for the default one.
    """
    return shell.command_line(*words, *[f"--data_dir={data_dir}"] * bool(data_dir), *flags())


def keep_copies(folder: pathlib.Path) -> None:
    """Copies the sources of registered code into a run's folder, with their digests in imports.json.

    Of several files of one name, the copies are numbered: net.py, net-2.py.
    """
    if not _imports:
        return
    copies = folder / FOLDER
    copies.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, str]] = {}  # by the name of the copy
    for entry in _imports.values():
        stem, suffix = entry.path.stem, entry.path.suffix
        names = (entry.path.name, *(f"{stem}-{i}{suffix}" for i in range(2, len(_imports) + 2)))
        file = next(name for name in names if name not in entries)
        sealed.write_atomically(copies / file, entry.path.read_bytes())
        entries[file] = {"name": entry.name, "file": file, "digest": entry.digest}
    sealed.write_json(copies / "imports.json", {"imports": list(entries.values())})


def check_imports(folder: pathlib.Path) -> None:
    """Checks that this process has imported the code that the run in `folder` was made with.

    Raises InputError if code is missing or its source has changed, and for a damaged imports.json.
    """
    path = folder / FOLDER / "imports.json"
    try:
        content = sealed.read_json(path)
        entries = content["imports"] if isinstance(content, dict) else content  # a list, before version 0.3
        needed = {entry["digest"]: (entry["name"], entry["file"]) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    have = {entry.digest for entry in _imports.values()}
    others = [entry for entry in _imports.values() if entry.digest not in needed]
    for digest, (name, file) in needed.items():
        if digest in have:
            continue
        copy = folder / FOLDER / file
        if any({name, pathlib.Path(name).name, file} & {entry.name, entry.path.name} for entry in others):
            raise InputError(f"{name} is not the code that {folder} was trained with: its copy is {copy}")
        raise InputError(f"{folder} needs --import={name}; its copy is {copy}")


def _digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------- decorators


def _add(kind: str, table: MutableMapping[str, Any], name: str, entry: Any, function: Any) -> None:
    """Adds `entry` to a table under `name`, and notes the source of `function`, which it is made from.

    `kind` is a noun for messages, such as 'model'. Raises InputError for a name that is taken, or that is not an
    identifier, as call strings need.
    """
    if not name.isidentifier():
        raise InputError(f"{kind} {name!r}: expected a name of letters, digits and underscores, as in 'tiny_net'")
    if name in table:
        raise InputError(f"there is a {kind} {name!r} already; choose another name")
    table[name] = entry
    source = getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__file__", None)
    if source and not function.__module__.startswith("cnnjax."):  # a notebook has no file to keep
        path = pathlib.Path(source).resolve()
        _imports.setdefault(path, Import(path.name, path, _digest(path)))


def _decorator(kind: str, table: MutableMapping[str, Any], name: str) -> Callable[[T], T]:
    """Returns a decorator that adds a function to a table by `_add`, and returns the function."""

    def add(function: T) -> T:
        _add(kind, table, name, function, function)
        return function

    return add


def register_model(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int = 1000, paper: str = "", year: int = 0
) -> Callable[[T], T]:
    """Returns a decorator that registers a flax module, or a function that builds one, as a network for `model=`.

    The arguments of the call string are the module's fields or the function's parameters. `num_classes` and `dtype` are
    also passed where they are declared. The network is called as `module(images, train=...)`.

    Args:
      name: name in call strings.
      input_shape: [H, W, C]; default of `summary`.
      num_classes: default of `create_model` and `summary`.
      paper: citation, '' without one.
      year: year of the paper, 0 without one.
    """
    from cnnjax.models import MODELS
    from cnnjax.models.network import Variant

    def add(build: T) -> T:
        """Adds the network to MODELS, and returns it."""
        row = Variant(build, f"{paper}, {year}" if year else paper, input_shape, num_classes, {}, params=0, macs=0)
        _add("model", MODELS, name, row, build)
        return build

    return add


def register_augmentation(name: str, stage: str = "step") -> Callable[[T], T]:
    """Returns a decorator that registers an operation for `augment=` and `preprocess=`.

    `stage` says where it runs, and so its signature: 'step' is `(key, image float32 [H, W, C] in [0, 1], ...) ->
    image`, compiled with the training step; 'batch' is `(key, images, target, ...) -> (images, target)`, compiled too;
    'host' is `(image uint8 [H, W, C], rng, ...) -> image`. Other parameters are arguments of the call string.
    """
    from cnnjax.augment import MIXING, OPS
    from cnnjax.data.transforms import HOST_OPS

    tables: dict[str, MutableMapping[str, Any]] = {"step": OPS, "batch": MIXING, "host": HOST_OPS}
    if stage not in tables:
        raise InputError(f"register_augmentation: stage = {stage!r}; valid: {', '.join(tables)}")
    return _decorator("operation", tables[stage], name)


def register_optimizer(name: str) -> Callable[[T], T]:
    """Returns a decorator that registers an optimizer for `optimizer=`.

    The function's parameters are the arguments of the call string, and it returns an optax transformation, which does
    not apply the learning rate. Where it declares a parameter `weight_decay`, it is given the transformation that adds
    the weight decay to the updates, to chain before or after its own.
    """
    from cnnjax.optim import OPTIMIZERS

    return _decorator("optimizer", OPTIMIZERS, name)


def register_schedule(name: str) -> Callable[[T], T]:
    """Returns a decorator that registers a learning-rate schedule for `schedule=`.

    The function's parameters are the arguments of the call string. It returns an optax schedule: the fraction, from 0
    to 1, of the learning rate at each step. Where it declares them, it is given `steps`, which converts a duration such
    as '5 epochs' to steps, and `total`, the number of steps of the training.
    """
    from cnnjax.optim import SCHEDULES

    return _decorator("schedule", SCHEDULES, name)


def register_loss(name: str) -> Callable[[T], T]:
    """Returns a decorator that registers a loss for `loss=`: `(logits [N, K], target [N, K], ...) -> float32 [N]`.

    `target` is a distribution over the K classes. Other parameters are arguments of the call string.
    """
    from cnnjax.losses import LOSSES

    return _decorator("loss", LOSSES, name)


def register_metric(metric: Any) -> Any:
    """Registers a `cnnjax.metrics.Metric`, and returns it.

    It is then logged and shown, and monitors and sweeps can follow it. The best checkpoint is that of the highest
    validation accuracy all the same.
    """
    from cnnjax.metrics import METRICS

    _add("metric", METRICS, metric.name, metric, metric.batch_sum)
    return metric


def register_dataset(name: str, entry: Any, reader: Callable[..., Any] | None = None) -> None:
    """Registers a `cnnjax.data.catalog.Dataset`, so that `cnnjax data build NAME` can build the data set.

    `reader` reads the original files: `(folder, entry) -> (entry, splits)`. It is registered under the name
    `entry.reader`. None means that a reader of this name exists already.
    """
    from cnnjax.data.catalog import DATASETS
    from cnnjax.data.readers import READERS

    if reader is not None:
        _add("reader", READERS, entry.reader, reader, reader)
    _add("data set", DATASETS, name, entry, reader)


def imported() -> Sequence[Import]:
    """Returns the files and modules with registered code that this process has imported."""
    return tuple(_imports.values())
