"""A trained network as a file that other programs take.

A `.stablehlo` is the whole network as a program, weights and normalisation inside, which runs without our code:

    exported = jax.export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
    logits = exported.call(images)  # uint8 [b, H, W, C] -> float32 [b, classes], for any b

It is for images of the size that the JSON file beside it says, with values in [0, 255]; operations that change sizes
come before it, and that file names them. JAX promises to read it for at least six months.
"""

import contextlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, evaluate, sharding, spec, weights
from cnnjax.data import pipeline
from cnnjax.errors import InputError, unknown

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # of all of them, one program


def stablehlo(
    network: weights.Trained, step: str, say: Callable[[str], None], shape: tuple[int, ...] = ()
) -> dict[str, bytes]:
    """The serialized program, and as '.json' what there is to know of it.

    `shape` is the images' [H, W, C], by default what the network's preprocess makes of images as it learnt from.
    Raises InputError where the network does not take it.
    """
    settings, known, model, restore = network
    host_ops, step_ops = pipeline.split_ops(settings.preprocess)
    shape = shape or _shape(tuple(known["shape"]), host_ops)
    evaluate.check_takes(settings, known, model, shape)
    number, variables = restore(sharding.make_mesh(jax.local_devices()[:1]), step, say)
    prepare = augment.build(step_ops, settings.normalize, known, shape)

    def logits(images: jax.Array) -> jax.Array:
        scores: Any = model.apply(variables, prepare(jax.random.key(0), images), train=False)
        return scores.mean(axis=tuple(range(1, scores.ndim - 1)))  # of maps of logits the mean counts

    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))
    facts = {
        "model": settings.model,
        "step": number,
        "before": "|".join(map(spec.render, host_ops)),  # what makes images of that size
        "input": {"dtype": "uint8", "shape": ["b", *shape], "channels": "grey" if shape[-1] == 1 else "RGB"},
        "output": {"dtype": "float32", "shape": ["b", len(known["classes"])], "of": "logits"},
        "platforms": PLATFORMS,
        "classes": known["classes"],
    }
    return {"": bytes(exported.serialize()), ".json": (json.dumps(facts, indent=2) + "\n").encode()}


def _shape(shape: tuple[int, ...], calls: list[spec.Call]) -> tuple[int, ...]:
    """The size of images of this one after these operations; itself, where it is too small for them."""
    with contextlib.suppress(InputError):
        (shape,) = pipeline.by_size(np.array([shape]), calls)
    return tuple(map(int, shape))


# By the end of a file's name, from (network, step, say) to what is written: of each file, its further suffix and bytes.
WRITERS: dict[str, Callable[..., dict[str, bytes]]] = {".stablehlo": stablehlo}


def check_name(path: pathlib.Path) -> None:
    """Raises InputError unless the name says how to write the file, and its folder is there."""
    if path.suffix not in WRITERS:
        raise unknown(f"ending of --to={path}:", path.suffix, WRITERS)
    if not path.parent.is_dir():
        raise InputError(f"--to={path}: there is no folder {path.parent}")


def write(
    network: weights.Trained, path: pathlib.Path, step: str = "last", say: Callable[[str], None] = print, **options: Any
) -> dict[pathlib.Path, int]:
    """Writes the network as the name's ending has it; returns the files and their bytes. Each is there whole or not."""
    check_name(path)
    written = {}
    for suffix, data in WRITERS[path.suffix](network, step, say, **options).items():
        final = path.with_name(path.name + suffix)
        part = final.with_name(final.name + ".part")
        part.write_bytes(data)
        part.replace(final)
        written[final] = len(data)
    return written
