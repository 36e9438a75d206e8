"""A trained network as a file that other programs take.

A `.safetensors`, `.pth` or `.pt` holds its weights, for a library for PyTorch. A `.stablehlo` is the whole network as a
program, weights and normalisation inside, which runs without our code:

    exported = jax.export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
    logits = exported.call(images)  # uint8 [b, H, W, C] -> float32 [b, classes], for any b

It is for images of the size that the JSON file beside it says, as they are decoded, in [0, 255]; operations that change
sizes come before it, and that file names them. JAX promises to read it for at least six months.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, pretrained, spec
from cnnjax.data import imagenet, pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, nearest
from cnnjax.evaluation import scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.pretrained import convert
from cnnjax.pretrained import export as state_dicts
from cnnjax.runs import workdir
from cnnjax.state import path_name

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # of all of them, one program


def stablehlo(
    network: pretrained.LoadedNetwork, step: str, say: Callable[[str], None], shape: tuple[int, ...] = ()
) -> tuple[bytes, dict[str, Any]]:
    """The serialized program, and what there is to know of it.

    `shape` is the images' [H, W, C], by default what the network's preprocess makes of images as it learnt from.
    Raises InputError where the network does not take it.
    """
    data, recipe = network.data, parse_eval_recipe(network.config)
    shape = shape or _shape(data.shape, list(recipe.host_ops))
    scoring.check_accepts(recipe, data, network.model, shape)
    restored = network.load_variables(sharding.make_mesh(jax.local_devices()[:1]), step, say)
    prepare = augment.build(recipe.step_ops, recipe.normalize, data.statistics, shape)

    def logits(images: jax.Array) -> jax.Array:
        scores: Any = network.model.apply(restored.variables, prepare(jax.random.key(0), images), train=False)
        return scores.mean(axis=tuple(range(1, scores.ndim - 1)))  # of maps of logits the mean counts

    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))
    return bytes(exported.serialize()), {
        "model": recipe.model,
        "step": restored.step,
        "before": "|".join(map(spec.render, recipe.host_ops)),  # what makes images of that size
        "input": {"dtype": "uint8", "shape": ["b", *shape], "channels": "grey" if shape[-1] == 1 else "RGB"},
        "output": {"dtype": "float32", "shape": ["b", len(data.classes)], "of": "logits"},
        "platforms": PLATFORMS,
        "classes": imagenet.readable(data.classes),
    }


def _shape(shape: tuple[int, ...], calls: list[spec.Call]) -> tuple[int, ...]:
    """The size of images of this one after these operations; itself, where it is too small for them."""
    with contextlib.suppress(InputError):
        (shape,) = pipeline.group_by_shape(np.array([shape]), calls)
    return tuple(map(int, shape))


def torch_arrays(
    network: pretrained.LoadedNetwork, step: str, say: Callable[[str], None], names: str = ""
) -> dict[str, np.ndarray]:
    """The state dict that a library's own network loads, as `weights.export.named` has it; says whose names it has."""
    model, shape = network.model, network.data.shape
    names = names or next(iter(convert.torch_libraries(model)), state_dicts.OWN)
    restored = network.load_variables(sharding.make_mesh(jax.local_devices()[:1]), step, say)
    leaves = jax.tree_util.tree_leaves_with_path(restored.variables)
    arrays = state_dicts.to_state_dict(
        model, shape, {path_name(path): np.asarray(leaf) for path, leaf in leaves}, names
    )
    say(f"{len(arrays)} arrays, in the names of {names}" if names != state_dicts.OWN else f"{len(arrays)} arrays")
    statistics = network.data.statistics
    by = {name: np.round(statistics[name], 4).tolist() for name in ("mean", "std") if name in statistics}
    say(f"for images in [0, 1] behind normalize={network.config.normalize!r}, {by}")  # which no such file says
    return arrays


PROGRAM = ".stablehlo"
SUFFIXES = (PROGRAM, *state_dicts.WRITERS)


def check(path: pathlib.Path, names: str = "", shape: tuple[int, ...] | str | None = None) -> None:
    """Raises InputError unless the file's name says how to write it, its folder is there, and the options fit."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"--to={path}: its name does not say what to write; {nearest(path.suffix, SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--to={path}: there is no folder {path.parent}")
    if names and path.suffix == PROGRAM:
        raise InputError(f"--names={names} is for weights alone: {', '.join(state_dicts.WRITERS)}")
    if shape and path.suffix != PROGRAM:
        raise InputError(f"--input is for {PROGRAM}: weights have no size of images")


def write(
    network: pretrained.LoadedNetwork,
    path: pathlib.Path,
    *,
    step: str = "last",
    names: str = "",
    shape: tuple[int, ...] = (),
    say: Callable[[str], None] = print,
) -> list[pathlib.Path]:
    """Writes the network as the file's name has it, each file whole or not at all; returns the files.

    Raises InputError as `check` does, and where the network does not go into such a file.
    """
    check(path, names, shape)
    if path.suffix != PROGRAM:
        state_dicts.write(path, torch_arrays(network, step, say, names))
        return [path]
    program, facts = stablehlo(network, step, say, shape)
    beside = path.with_name(path.name + ".json")
    part = path.with_name(path.name + ".part")
    part.write_bytes(program)
    part.replace(path)
    workdir.write_json(beside, facts)
    return [path, beside]
