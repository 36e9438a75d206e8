"""Our networks against independent implementations in PyTorch: the same weights, the same images, the same numbers.

Layers are paired in the order in which they run, among those of one shape: a wrong pairing gives wrong numbers.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models import create_model
from cnnjax.pretrained.library import list_layers

Path = tuple[str, ...]

# Of the largest difference, relative to the largest number of a layer. What float64 leaves is that logits are float32.
LIMITS = {"float32": 1e-4, "float64": 1e-5}


def torch_module() -> Any:
    """PyTorch; linters without it have nothing to say about that."""
    return importlib.import_module("torch")


_KEPT: list[Any] = []  # torch forgets a library's operators with the library


def torch_models(library: str) -> Any:
    """The model module of torchvision, timm or pytorchcv."""
    torch = torch_module()

    found = importlib.util.find_spec("torchvision")
    folder = found.submodule_search_locations if found else None
    try:
        torch.ops.load_library(f"{folder[0] if folder else ''}/_C.so")
    except OSError:  # torchvision's operators are for another build of torch; of those, networks need none
        if not _KEPT:
            _KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
            for name in ("nms", "qnms"):
                _KEPT[0].define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    return importlib.import_module(
        {"torchvision": "torchvision.models", "timm": "timm", "pytorchcv": "pytorchcv.model_provider"}[library]
    )


class Reference(NamedTuple):
    """An independent implementation of the network that the call string `ours` describes."""

    ours: str
    theirs: Callable[[], Any]  # makes the torch module; imports what it needs
    source: str  # the library, its version and name there
    sizes: tuple[tuple[int, int], ...]  # height and width of two images, one odd
    num_classes: int = 1000
    channels: int = 3
    batch: int = 4
    last: str = ""  # a pattern of their layers that run before others of their `unit` and come after them with us
    unit: str = ""  # a pattern of the names' beginnings that layers of one unit share
    aux: Callable[[Any], tuple] | None = None  # their output in training -> (logits, auxiliary logits in our order)


class Layer(NamedTuple):
    name: Any  # a path of ours, or a name of theirs
    shapes: tuple[tuple[int, ...], ...]  # what pairs it: outputs and inputs of a kernel, or maps
    window: tuple[int, ...] = ()  # of a full connection to maps: their height, width and number


class Case(NamedTuple):
    """Our network with random weights, and random images."""

    model: nn.Module
    images: np.ndarray
    labels: np.ndarray
    variables: Any


def our_layers(case: Case) -> list[Layer]:
    """Our layers that have variables, in the order in which they run."""
    found = []
    for layer in list_layers(case.model, case.images.shape[1:]):
        kernels = [shape for path, shape in layer.arrays.items() if path.endswith("/kernel")]
        shape = (kernels[0][-1], int(np.prod(kernels[0][:-1]))) if kernels else next(iter(layer.arrays.values()))
        found.append(Layer(tuple(layer.path.split("/")), (shape,), layer.fc_input))
    return found


def _theirs(net: Any, x: Any, row: Reference) -> list[Layer]:
    """Their layers that have parameters, in the order in which they run."""
    torch = torch_module()

    seen: dict[str, Layer] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: Any, args: Any, out: Any) -> None:
            own = dict(module.named_parameters(recurse=False))
            buffers = dict(module.named_buffers(recurse=False))
            own |= {"bias": own.get("bias", buffers.get("running_mean"))}
            shape = tuple(own.get("weight", own["bias"]).shape)
            size = (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else shape
            seen.setdefault(name, Layer(name, (size,)))

        return record

    hooks = [
        module.register_forward_hook(hook(name))
        for name, module in net.named_modules()
        if list(module.parameters(recurse=False))
        or dict(module.named_buffers(recurse=False)).get("running_mean") is not None
    ]
    net.train()
    with torch.no_grad():
        net(x)
    for one in hooks:
        one.remove()
    return shortcuts_last(list(seen.values()), row.last, row.unit)


def shortcuts_last(layers: list[Layer], last: str, unit: str) -> list[Layer]:
    """The layers with those that the pattern `last` finds behind the others whose names begin alike, as in `unit`."""
    if not last:
        return layers
    units = [found.group() if (found := re.match(unit, layer.name)) else None for layer in layers]
    ends = {name: i for i, name in enumerate(units)}
    places = [
        ends[name] + 0.5 if re.search(last, layer.name) else i
        for i, (layer, name) in enumerate(zip(layers, units, strict=True))
    ]
    return [layers[i] for i in sorted(range(len(layers)), key=places.__getitem__)]


def pair(ours: list[Layer], theirs: list[Layer]) -> list[tuple[Layer, str]]:
    """Each of our layers with the name of theirs."""
    waiting: dict[Any, list[Layer]] = {}
    for layer in theirs:
        waiting.setdefault(layer.shapes, []).append(layer)
    pairs = []
    for layer in ours:
        if not waiting.get(layer.shapes):
            raise AssertionError(f"the reference has no layer left like ours {layer}; left: {waiting}")
        pairs.append((layer, waiting[layer.shapes].pop(0).name))
    left = [layer for layers in waiting.values() for layer in layers]
    if left:
        raise AssertionError(f"the reference has layers that ours lacks: {left}")
    return pairs


THEIR_NAMES = {"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"}
THEIR_STATE = {"mean": "running_mean", "var": "running_var"}


def _to_torch(leaf: np.ndarray, layer: Layer, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel of ours in PyTorch's layout; vectors as they are."""
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1).reshape(shape)
    if leaf.ndim == 2:
        return leaf.reshape(*layer.window, -1).transpose(3, 2, 0, 1).reshape(shape)
    return leaf.reshape(shape)


def random_variables(model: nn.Module, x: np.ndarray, seed: int = 0) -> Any:
    """Variables without a 0 or a 1 to hide behind: random kernels, biases, scales and statistics."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0, impl="rbg"), x, train=False))

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            # By the outputs where these are more: strong gates of squeeze-and-excitation, block after block, would
            # make a third of the logits of what float32 rounds.
            inputs = np.prod(leaf.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / (max(leaf.shape) if leaf.ndim == 2 else inputs)), leaf.shape)
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        elif name == "slope":
            value = rng.uniform(0.1, 0.4, leaf.shape)
        else:
            value = rng.normal(0, 0.1, leaf.shape)
        return value.astype(x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_case(row: Any, shape: tuple[int, ...], dtype: str) -> Case:
    """What `row.ours` describes, for images of [height, width, channels]."""
    model = create_model(row.ours, row.num_classes, dtype)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(row.batch, *shape)).astype(dtype)
    labels = rng.integers(row.num_classes, size=row.batch)
    return Case(model, images, labels, random_variables(model, images))


def at(tree: Any, path: Path) -> Any:
    for part in path:
        if part not in tree:
            return {}
        tree = tree[part]
    return tree


class Results(NamedTuple):
    evaluated: np.ndarray  # the logits, as vectors
    trained: list[np.ndarray]  # those in training, and those of auxiliary classifiers
    statistics: Any
    gradients: Any  # of the sum of their cross-entropies; empty when not wanted


def our_results(case: Case, training: bool = True, gradients: bool = True) -> Results:
    """What ours gives; of training, and of its gradients, only when that is wanted."""
    model, images, labels, variables = case
    rest = {name: value for name, value in variables.items() if name != "params"}

    def vectors(logits: Any) -> Any:
        return logits.reshape(len(images), -1)

    def loss_fn(params: Any) -> Any:
        logits, new = model.apply({"params": params, **rest}, images, train=True, mutable=[*rest, "aux_logits"])
        new = dict(new)
        outputs = [vectors(one) for one in (logits, *jax.tree.leaves(new.pop("aux_logits", {})))]
        return sum(cross_entropy(one, labels) for one in outputs), (outputs, new)

    evaluated = jax.jit(lambda v: vectors(model.apply(v, images, train=False)))(variables)
    if not training:
        return Results(evaluated, [], {}, {})
    grads: Any = {}
    if gradients:
        grads, (outputs, new) = jax.jit(jax.grad(loss_fn, has_aux=True))(variables["params"])
    else:
        _, (outputs, new) = jax.jit(loss_fn)(variables["params"])
    return Results(evaluated, outputs, new.get("batch_stats", {}), grads)


def cross_entropy(logits: Any, labels: np.ndarray) -> Any:
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()


class Differences(dict[str, float]):
    """The largest relative difference of each kind, and by name of all that differs more than `limit`."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def add(self, kind: str, ours: Any, theirs: Any, name: str = "", scale: float = 0.0) -> None:
        """Relative to the largest of theirs, or to `scale` where that is more."""
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        what = f"{kind} {name}"
        assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
        assert np.isfinite(ours).all(), what
        error = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), scale, 1e-30))
        self[kind] = max(self.get(kind, 0.0), error)
        if not error <= self.limit:
            self[what] = error


Comparison = Callable[[Any, tuple[int, int], str, bool], Differences]  # row, size, dtype, and whether of training


def compare_both(run: Comparison, row: Any, size: tuple[int, int]) -> tuple[Differences, Differences]:
    """The largest relative differences: in float32 of logits in evaluation; in float64 of all that is compared.

    That is logits in evaluation and in training, statistics, and gradients. In float32, training says little: what is
    rounded grows with each division by a small variance, and switches ReLUs, which changes gradients altogether. Where
    the reference's own float32 is further than LIMITS from its float64, as with squeeze-and-excitation and random
    weights, three times that is the limit of the first. What differs more is there by name, too.
    """
    single = run(row, size, "float32", False)
    with jax.enable_x64(True):
        return single, run(row, size, "float64", True)


def compare(row: Reference, size: tuple[int, int]) -> tuple[Differences, Differences]:
    """Our network and theirs: see `compare_both`."""
    return compare_both(_compare, row, size)


def with_our_weights(row: Reference, case: Case) -> tuple[Any, list[tuple[Layer, str]]]:
    """Their network with the variables of the case, and the pairs of layers."""
    torch = torch_module()
    torch.manual_seed(0)
    net = row.theirs().to(getattr(torch, str(case.images.dtype)))
    pairs = pair(our_layers(case), _theirs(net, torch.tensor(case.images.transpose(0, 3, 1, 2).copy()), row))
    state = dict(net.state_dict())
    for layer, name in pairs:
        path, variables = layer.name, case.variables
        for leaf_name, leaf in (at(variables.get("constants", {}), path) | at(variables["params"], path)).items():
            key = f"{name}.{THEIR_NAMES[leaf_name]}"
            state[key] = torch.tensor(_to_torch(leaf, layer, tuple(state[key].shape)).copy())
        for leaf_name, leaf in at(variables.get("batch_stats", {}), path).items():
            state[f"{name}.{THEIR_STATE[leaf_name]}"] = torch.tensor(leaf.copy())
    net.load_state_dict(state)
    return net, pairs


def _compare(row: Reference, size: tuple[int, int], dtype: str, training: bool) -> Differences:
    torch = torch_module()
    case = make_case(row, (*size, row.channels), dtype)
    net, pairs = with_our_weights(row, case)
    theirs_x, variables = torch.tensor(case.images.transpose(0, 3, 1, 2).copy()), case.variables
    for module in net.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0

    # The same numbers.
    differences, ours = Differences(LIMITS[dtype]), our_results(case, training)
    net.eval()
    with torch.no_grad():
        logits = net(theirs_x)
        if dtype == "float32":  # no closer than the reference is to itself: random gates can make little of much
            exact = net.double()(theirs_x.double())
            rounded = float((logits - exact).abs().max() / exact.abs().max())
            differences.limit = max(LIMITS[dtype], 3 * rounded)
    differences.add("eval", ours.evaluated, logits.numpy().reshape(row.batch, -1))
    if not training:
        return differences

    net.train()
    counts: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, args, out, name=name: counts.update({name: args[0].numel() // args[0].shape[1]})
        )
        for name, module in net.named_modules()
        if hasattr(module, "running_mean")
    ]
    outputs = net(theirs_x)
    for hook in hooks:
        hook.remove()
    outputs = [one.reshape(row.batch, -1) for one in (row.aux(outputs) if row.aux else (outputs,))]
    assert len(ours.trained) == len(outputs), "the number of auxiliary classifiers"
    for mine, other in zip(ours.trained, outputs, strict=True):
        differences.add("train", mine, other.detach().numpy())
    target = torch.tensor(case.labels)
    loss: Any = sum(torch.nn.functional.cross_entropy(one, target) for one in outputs)
    loss.backward()
    modules = dict(net.named_modules())
    for layer, name in pairs:
        where, grads = "/".join(layer.name), at(ours.gradients, layer.name)
        own = {leaf_name: getattr(modules[name], THEIR_NAMES[leaf_name]).grad for leaf_name in grads}
        assert all(grad is not None for grad in own.values()), f"{name}: no gradient there"
        scale = max((float(grad.abs().max()) for grad in own.values()), default=0.0)
        for leaf_name, leaf in grads.items():
            value = own[leaf_name].numpy()
            leaf = _to_torch(np.asarray(leaf), layer, value.shape)
            differences.add("gradient", leaf, value, f"{where}/{leaf_name}", scale)
        for leaf_name, leaf in at(ours.statistics, layer.name).items():
            old = np.asarray(at(variables["batch_stats"], layer.name)[leaf_name])
            value = getattr(modules[name], THEIR_STATE[leaf_name]).numpy()
            if leaf_name == "var":  # PyTorch keeps n / (n - 1) times the variance that it divides by
                keep, n = 1 - modules[name].momentum, counts[name]
                value = keep * old + (value - keep * old) * (n - 1) / n
            differences.add("statistics", leaf, value, f"{where}/{leaf_name}")
    return differences
