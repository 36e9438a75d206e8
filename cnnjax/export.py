"""Exports trained networks: weights for PyTorch libraries, or a whole program that runs without this package.

`.safetensors`, `.pth` and `.pt` files hold weights. A `.stablehlo` file is the network as a program, with weights and
normalization inside:

    exported = jax.export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
    logits = exported.call(images)  # uint8 [b, H, W, C] in [0, 255] -> float32 [b, classes], for any b

A JSON file beside it states the image size, and the operations that produce that size, which are not in the program.
JAX guarantees that it can read the program for six months.

A `.mlir` file is the same program for one image as text, without the values of the weights: to read, and to look at in
Netron, which knows StableHLO by this name.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, pretrained, sealed, spec
from cnnjax.data import imagenet, pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.pretrained import convert
from cnnjax.pretrained import export as state_dicts
from cnnjax.pretrained.description import Description
from cnnjax.state import path_name

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # the program runs on each
PROGRAM = ".stablehlo"
TEXT = ".mlir"  # the program as text
MAX_VALUES = 16  # of a constant in the text
SUFFIXES = (PROGRAM, TEXT, *state_dicts.WRITERS)

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Program:
    """A network as a serialized StableHLO program.

    Attributes:
      serialized: bytes for jax.export.deserialize.
      facts: content of the JSON file beside the program: 'model', 'step', 'before' (host operations that the caller
          applies), 'input', 'output', 'platforms', 'classes'.
    """

    serialized: bytes
    facts: dict[str, Any]


def export_program(network: pretrained.LoadedNetwork, step: str, log: Log, shape: tuple[int, ...] = ()) -> Program:
    """Exports a network to a program: uint8 images [b, H, W, C] -> float32 logits [b, classes], for any b.

    The program includes normalization. Spatial logits are averaged.

    Args:
      network: the trained network.
      step: checkpoint: 'last', 'best' or a step number.
      log: receives messages.
      shape: [H, W, C]. () means the size that the network's `preprocess` makes of images of its training set's size.

    Raises:
      InputError: the network does not accept that size.
    """
    logits, shape, restored_step = _logits_function(network, step, log, shape)
    data, host_operations = network.data, parse_eval_recipe(network.config).operations.host
    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))
    facts = {
        "model": network.config.model,
        "step": restored_step,
        "before": "|".join(map(spec.render, host_operations)),  # the operations that produce that image size
        "input": {"dtype": "uint8", "shape": ["b", *shape], "channels": "grey" if shape[-1] == 1 else "RGB"},
        "output": {"dtype": "float32", "shape": ["b", len(data.classes)], "of": "logits"},
        "platforms": PLATFORMS,
        "classes": imagenet.readable(data.classes),
    }
    return Program(bytes(exported.serialize()), facts)


def export_text(network: pretrained.LoadedNetwork, step: str, log: Log, shape: tuple[int, ...] = ()) -> str:
    """Exports the program of `export_program`, for one image, as text in MLIR. Arguments and errors are the same.

    Constants of more than MAX_VALUES values are left out. The text is that for a TPU, in which each layer is an
    operation of StableHLO.
    """
    logits, shape, _ = _logits_function(network, step, log, shape)
    traced = jax.jit(logits).trace(jax.ShapeDtypeStruct((1, *shape), jnp.uint8))
    module: Any = traced.lower(lowering_platforms=("tpu",)).compiler_ir("stablehlo")
    return module.operation.get_asm(large_elements_limit=MAX_VALUES)


def _logits_function(
    network: pretrained.LoadedNetwork, step: str, log: Log, shape: tuple[int, ...]
) -> tuple[Callable[[jax.Array], jax.Array], tuple[int, ...], int]:
    """Returns uint8 images [b, H, W, C] -> logits [b, classes] with the weights inside, (H, W, C), and their step.

    Arguments and errors are those of `export_program`.
    """
    recipe, data, model = parse_eval_recipe(network.config), network.data, network.model
    shape = shape or _preprocessed_shape(data.shape, recipe.operations.host)
    scoring.check_accepts(recipe, data, model, shape)
    restored = network.load_variables(sharding.make_mesh(jax.local_devices()[:1]), step, log)
    prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, shape)

    def logits(images: jax.Array) -> jax.Array:
        """Computes the logits [b, classes] of uint8 images [b, H, W, C]."""
        scores: Any = model.apply(restored.variables, prepare(jax.random.key(0), images), train=False)
        return scores.mean(axis=tuple(range(1, scores.ndim - 1)))  # spatial logits are averaged

    return logits, shape, restored.step


def _preprocessed_shape(shape: tuple[int, ...], calls: Sequence[spec.Call]) -> tuple[int, ...]:
    """Returns the shape [H, W, C] of an image of shape `shape` after the host operations `calls`.

    Returns `shape` itself if an operation does not fit, such as a crop larger than the image.
    """
    with contextlib.suppress(InputError):
        (shape,) = pipeline.group_by_shape(np.array([shape]), calls)
    return tuple(map(int, shape))


def state_dict(network: pretrained.LoadedNetwork, step: str, log: Log, names: str = "") -> dict[str, np.ndarray]:
    """Returns the weights as a state dict {name: array}, by `cnnjax.pretrained.export.to_state_dict`.

    Logs the number of arrays, whose names they have, and the normalization that the weights expect.

    Args:
      network: the trained network.
      step: checkpoint: 'last', 'best' or a step number.
      log: receives messages.
      names: a PyTorch library ('torchvision', 'timm', ...), or 'own' for our parameter paths. '' means the first
          library that has the network, or else 'own'.
    """
    names = names or next(iter(convert.torch_libraries(network.model)), state_dicts.OWN)
    variables = network.load_variables(sharding.make_mesh(jax.local_devices()[:1]), step, log).variables
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    own = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
    arrays = state_dicts.to_state_dict(network.model, network.data.shape, own, names)
    log(f"{len(arrays)} arrays, in the names of {names}" if names != state_dicts.OWN else f"{len(arrays)} arrays")
    statistics = network.data.statistics
    shown = {name: np.round(statistics[name], 4).tolist() for name in ("mean", "std") if name in statistics}
    log(f"input: images in [0, 1], then normalize={network.config.normalize!r} with {shown}")  # for other programs
    return arrays


def check(path: pathlib.Path, names: str = "", shape: tuple[int, ...] | str | None = None) -> None:
    """Checks the options of an export to `path` before the work; `names` and `shape` are those of `write`.

    Raises InputError if the suffix is unknown, the folder does not exist, or an option does not apply to the format.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--to={path}: unknown format {path.suffix!r}; supported: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--to={path}: the folder {path.parent} does not exist")
    if names and path.suffix not in state_dicts.WRITERS:
        raise InputError(f"--names={names} is only for weight files: {', '.join(state_dicts.WRITERS)}")
    if shape and path.suffix in state_dicts.WRITERS:
        raise InputError(f"--input is only for {PROGRAM} and {TEXT}: a weight file has no image size")


def write(
    network: pretrained.LoadedNetwork,
    path: pathlib.Path,
    *,
    step: str = "last",
    names: str = "",
    shape: tuple[int, ...] = (),
    log: Log = print,
) -> list[pathlib.Path]:
    """Writes a network in the format of the file's suffix, atomically, and returns the paths of the written files.

    `.safetensors`, `.pth` and `.pt` hold weights; `.stablehlo` holds a program and gets a JSON file beside it; `.mlir`
    holds its text.

    Args:
      network: the trained network.
      path: file to write.
      step: checkpoint: 'last', 'best' or a step number.
      names: naming of the weights, as in `state_dict`; only for weight files.
      shape: [H, W, C], as in `export_program`; only for programs.
      log: receives messages.

    Raises:
      InputError: as `check`, and for a network that the format cannot hold.
    """
    check(path, names, shape)
    if path.suffix == TEXT:
        sealed.write_atomically(path, export_text(network, step, log, shape).encode())
        return [path]
    if path.suffix != PROGRAM:
        described = Description(network.config, network.data)
        state_dicts.write(path, state_dict(network, step, log, names), described.to_json())
        if left_out := described.left_out():
            log(
                f"{path} lacks {', '.join(left_out)}, of many values: with these weights, read the run's folder instead"
            )
        return [path]
    program = export_program(network, step, log, shape)
    facts_path = path.with_name(path.name + ".json")
    sealed.write_atomically(path, program.serialized)
    sealed.write_plain_json(facts_path, program.facts)
    return [path, facts_path]
