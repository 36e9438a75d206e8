"""Exports trained networks: weights for PyTorch libraries, or a whole program that runs without this package.

`.safetensors`, `.pth` and `.pt` files hold weights. A `.stablehlo` file is the network as a program, with weights and
normalization inside:

    exported = jax.export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
    logits = exported.call(images)  # uint8 [b, H, W, C] in [0, 255] -> float32 [b, classes], for any b

A JSON file beside it states the image size, and the operations that produce that size, which are not in the program.
JAX guarantees that it can read the program for six months.

An `.onnx` file is the same network for ONNX Runtime, OpenCV, TensorRT and others, with the probabilities beside the
logits, and with the facts of that JSON file in its metadata:

    session = onnxruntime.InferenceSession("network.onnx")
    logits, probabilities = session.run(None, {"images": images})

An `.html` file is a page that computes the network in a browser, and shows its layers.

A `.mlir` file is the same program for one image as text, without the values of the weights: to read, and to look at in
Netron, which knows StableHLO by this name.
"""

import contextlib
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import __version__, augment, models, onnx, pretrained, sealed, spec
from cnnjax.data import imagenet, pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.pretrained import convert
from cnnjax.pretrained import export as state_dicts
from cnnjax.pretrained.description import Description
from cnnjax.runs import digest
from cnnjax.state import path_name

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # the program runs on each
PROGRAM = ".stablehlo"
TEXT = ".mlir"  # the program as text
ONNX = ".onnx"
PAGE = ".html"  # to look into the network in a browser
MAX_VALUES = 16  # of a constant in the text
COUNTED = (
    "the network's code takes the number of images for an int, and an export is for any number: write images.shape[0] "
    "in place of len(images)"
)
SUFFIXES = (PROGRAM, ONNX, PAGE, TEXT, *state_dicts.WRITERS)

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Program:
    """A network as a serialized StableHLO program.

    Attributes:
      serialized: bytes for jax.export.deserialize.
      facts: content of the JSON file beside the program: 'model', 'step', 'weights_crc32', 'before' (host operations
          that the caller applies), 'normalize' (is in the program), 'input', 'output', 'platforms', 'classes'.
    """

    serialized: bytes
    facts: dict[str, Any]


def export_program(
    network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...] = ()
) -> Program:
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
    inference = _inference(network, step, log, shape)
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *inference.shape), jnp.uint8)
    exported = jax.export.export(jax.jit(inference.logits), platforms=PLATFORMS)(images)
    return Program(bytes(exported.serialize()), _facts(network, inference) | {"platforms": PLATFORMS})


def export_onnx(network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...] = ()) -> bytes:
    """Exports a network to the content of an .onnx file. Arguments and errors are those of `export_program`.

    Its input is 'images', uint8 [b, H, W, C]; its outputs are 'logits' and 'probabilities', float32 [b, classes]. A
    network that computes in bfloat16 is written in float32. Raises InputError, which names the operation and the
    layer, also for a network that has no counterpart in ONNX.
    """
    inference, graph = _graph(network, step, log, shape)
    facts = _facts(network, inference)
    metadata = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
    name = spec.parse(network.config.model).name
    return onnx.serialize(graph, name, metadata, __version__)


def export_page(network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...] = ()) -> str:
    """Exports a network to a page that runs it in a browser. Arguments and errors are those of `export_onnx`.

    Raises InputError also for more weights than a page holds, and images of other than 1 or 3 channels.
    """
    from cnnjax.pages import explorer  # needs jinja2

    inference, graph = _graph(network, step, log, shape)
    facts, (height, width, channels) = _facts(network, inference), inference.shape
    resizes = [call for call in parse_eval_recipe(network.config).operations.host if call.name == "resize"]
    side = next(iter(resizes[-1].args), 0) if resizes else 0
    content = explorer.Explorer(
        model=network.config.model,
        params=models.count_params(network.model, (height, width, channels)),
        graph=graph,
        shape=inference.shape,
        classes=facts["classes"],
        before=facts["before"],
        resize=side if isinstance(side, int) else 0,
    )
    return explorer.html(content)


def _graph(
    network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...]
) -> tuple["_Inference", onnx.Graph]:
    """Returns a network as a function and as an ONNX graph, both in float32. See `export_onnx`."""
    if network.config.dtype != "float32" and hasattr(network.model, "dtype"):
        log(f"the file computes in float32, not in {network.config.dtype}")
        network = network.replace(model=network.model.clone(dtype=jnp.float32))
    inference = _inference(network, step, log, shape)
    return inference, onnx.network_graph(inference.logits, inference.shape, np.uint8)


def export_text(network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...] = ()) -> str:
    """Exports the program of `export_program`, for one image, as text in MLIR. Arguments and errors are the same.

    Constants of more than MAX_VALUES values are left out. The text is that for a TPU, in which each layer is an
    operation of StableHLO.
    """
    inference = _inference(network, step, log, shape)
    traced = jax.jit(inference.logits).trace(jax.ShapeDtypeStruct((1, *inference.shape), jnp.uint8))
    module: Any = traced.lower(lowering_platforms=("tpu",)).compiler_ir("stablehlo")
    return module.operation.get_asm(large_elements_limit=MAX_VALUES)


@dataclasses.dataclass(frozen=True)
class _Inference:
    """A network with its weights and normalization as a function.

    Attributes:
      logits: uint8 images [b, H, W, C] -> float32 logits [b, classes].
      shape: (H, W, C).
      step: that of the checkpoint.
      digest: CRC-32 of the weights, eight hexadecimal digits.
    """

    logits: Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...]
    step: int
    digest: str


def _facts(network: pretrained.LoadedNetwork, inference: _Inference) -> dict[str, Any]:
    """Returns what the user of an exported network needs to know: see `Program.facts`."""
    data, config = network.data, network.config
    before = parse_eval_recipe(config).operations.host  # the operations that produce that image size
    shape = inference.shape
    return {
        "model": config.model,
        "step": inference.step,
        "weights_crc32": inference.digest,
        "before": "|".join(map(spec.render, before)),
        "normalize": config.normalize,
        "input": {"dtype": "uint8", "shape": ["b", *shape], "channels": "gray" if shape[-1] == 1 else "RGB"},
        "output": {"dtype": "float32", "shape": ["b", len(data.classes)], "of": "logits"},
        "classes": imagenet.readable(data.classes),
    }


def _inference(network: pretrained.LoadedNetwork, step: str | int, log: Log, shape: tuple[int, ...]) -> _Inference:
    """Returns the network as a function with its weights inside. Arguments and errors are those of `export_program`."""
    recipe, data, model = parse_eval_recipe(network.config), network.data, network.model
    shape = shape or _preprocessed_shape(data.shape, recipe.operations.host)
    scoring.check_accepts(recipe, data, model, shape)
    restored = network.load_variables(sharding.make_mesh(jax.local_devices()[:1]), step, log)
    prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, shape)

    def logits(images: jax.Array) -> jax.Array:
        """Computes the logits [b, classes] of uint8 images [b, H, W, C]."""
        try:
            scores: Any = model.apply(restored.variables, prepare(jax.random.key(0), images), train=False)
        except TypeError as error:
            if "_DimExpr" not in str(error):
                raise
            raise InputError(COUNTED) from error
        return scores.mean(axis=tuple(range(1, scores.ndim - 1)))  # spatial logits are averaged

    records = digest.array_records(jax.tree.map(np.asarray, restored.variables))
    crc = zlib.crc32(json.dumps(records, sort_keys=True).encode())
    return _Inference(logits, shape, restored.step, f"{crc:08x}")


def _preprocessed_shape(shape: tuple[int, ...], calls: Sequence[spec.Call]) -> tuple[int, ...]:
    """Returns the shape [H, W, C] of an image of shape `shape` after the host operations `calls`.

    Returns `shape` itself if an operation does not fit, such as a crop larger than the image.
    """
    with contextlib.suppress(InputError):
        (shape,) = pipeline.group_by_shape(np.array([shape]), calls)
    return tuple(map(int, shape))


def state_dict(network: pretrained.LoadedNetwork, step: str | int, log: Log, names: str = "") -> dict[str, np.ndarray]:
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
        raise InputError(f"--input is only for {PROGRAM}, {ONNX}, {PAGE} and {TEXT}: a weight file has no image size")


def write(
    network: pretrained.LoadedNetwork,
    path: pathlib.Path,
    *,
    step: str | int = "last",
    names: str = "",
    shape: tuple[int, ...] = (),
    log: Log = print,
) -> list[pathlib.Path]:
    """Writes a network in the format of the file's suffix, atomically, and returns the paths of the written files.

    `.safetensors`, `.pth` and `.pt` hold weights; `.stablehlo` holds a program and gets a JSON file beside it; `.mlir`
    holds its text; `.onnx` holds an ONNX graph, `.html` a page that computes it.

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
    if path.suffix in state_dicts.WRITERS:
        described = Description(network.config, network.data)
        state_dicts.write(path, state_dict(network, step, log, names), described.to_json())
        if left_out := described.left_out():
            log(f"{path} omits {', '.join(left_out)} (too large): to use these weights, load the run's folder instead")
        return [path]
    options = (network, step, log, shape)
    if path.suffix == ONNX:
        sealed.write_atomically(path, export_onnx(*options))
        return [path]
    if path.suffix in (TEXT, PAGE):
        content = export_text(*options) if path.suffix == TEXT else export_page(*options)
        sealed.write_atomically(path, content.encode())
        return [path]
    program = export_program(*options)
    facts_path = path.with_name(path.name + ".json")
    sealed.write_atomically(path, program.serialized)
    sealed.write_plain_json(facts_path, program.facts)
    return [path, facts_path]
