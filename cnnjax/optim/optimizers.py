"""Optimisers, and what is put around one.

An optimiser is a function of `weight_decay`, the transformation that adds weight decay to the gradient, which it places
where its definition has it: before the moments (L2 regularisation) or after them (decoupled). What it returns gives
a direction uphill; the learning rate follows.

A wrapper is a function of `inner`, the whole update with its rate. While it is there, what it averages is evaluated,
not the parameters that gradients are taken at: `eval_params`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.errors import InputError
from cnnjax.optim.masks import matching
from cnnjax.state import Tree, path_name

Transform = optax.GradientTransformation
Wrapped = optax.GradientTransformationExtraArgs


def _momentum(momentum: float, nesterov: bool = False) -> Transform:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def sgd(weight_decay: Transform, momentum: float = 0.0, nesterov: bool = False) -> Transform:
    """Gradient descent, with momentum v = momentum v + g where asked for (PyTorch's form: the rate multiplies v)."""
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True goes with a momentum, as in sgd(momentum=0.9, nesterov=True)")
    return optax.chain(weight_decay, _momentum(momentum, nesterov))


def adagrad(weight_decay: Transform, eps: float = 1e-10, initial: float = 0.0) -> Transform:
    """Divides by the root of the sum of all squares so far (Duchi et al. 2011); TensorFlow's has initial=0.1."""
    return optax.chain(weight_decay, optax.scale_by_rss(initial, eps))


def rmsprop(
    weight_decay: Transform, decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0, tf: bool = False
) -> Transform:
    """Divides by the root of a moving average of squares (Hinton 2012, lecture 6e of his course).

    `tf`: as TensorFlow has it, with `eps` inside the root and an average that begins at 1; the Inception networks were
    trained with rmsprop(decay=0.9, eps=1.0, momentum=0.9, tf=True). The schedule's rate multiplies the momentum, as in
    `sgd`, where TensorFlow keeps the rates of the past in it.
    """
    rms = optax.scale_by_rms(decay, eps, initial_scale=1.0 if tf else 0.0, eps_in_sqrt=tf)
    return optax.chain(weight_decay, rms, _momentum(momentum))


def adam(weight_decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transform:
    """Adam (Kingma & Ba 2015); weight decay is part of the gradient."""
    return optax.chain(weight_decay, optax.scale_by_adam(b1, b2, eps))


def adamw(weight_decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transform:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), scaled by the learning rate."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), weight_decay)


def lion(weight_decay: Transform, b1: float = 0.9, b2: float = 0.99) -> Transform:
    """The sign of a momentum, with decoupled weight decay (Chen et al. 2023, arXiv:2302.06675, Algorithm 2).

    Its steps are long: a rate 3 to 10 times smaller than AdamW's, and a decay as many times larger (there, sec. 5).
    """
    return optax.chain(optax.scale_by_lion(b1, b2), weight_decay)


def _by_layer(coefficient: float) -> Transform:
    """Gives the update of each kernel `coefficient` times the kernel's norm; biases and scales keep theirs."""
    return optax.masked(
        optax.scale_by_trust_ratio(trust_coefficient=coefficient), lambda params: matching("kernel$", params)
    )


def lars(weight_decay: Transform, momentum: float = 0.9, nesterov: bool = False, trust: float = 0.001) -> Transform:
    """SGD with a rate for each layer, trust |w| / |g + decay|, for batches of 8,000 images and more.

    You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks. arXiv:1708.03888, 2017, Algorithm 1; the
    schedule's rate multiplies the momentum, as in `sgd`, and only kernels have rates of their own, as in MLPerf's.
    """
    return optax.chain(weight_decay, _by_layer(trust), optax.trace(momentum, nesterov))


def lamb(weight_decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> Transform:
    """AdamW with the update of each kernel as long as the kernel (You et al. 2020, arXiv:1904.00962, Algorithm 2)."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), weight_decay, _by_layer(1.0))


def muon(
    weight_decay: Transform,
    momentum: float = 0.95,
    nesterov: bool = True,
    rms: float = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Transform:
    """Kernels by an orthogonalised momentum (Jordan et al. 2024, kellerjordan.github.io/posts/muon), others by AdamW.

    A kernel [k, k, in, out] is the matrix [k k in, out]. An update is scaled by rms sqrt(max(rows, columns)), so that
    one rate, AdamW's, serves both (Liu et al. 2025, arXiv:2502.16982, sec. 2.2); rms=0 is Jordan's scale,
    sqrt(max(1, columns / rows)). Weight decay is decoupled.
    """

    def is_matrix(path: tuple, x: jax.Array) -> bool:
        return path_name(path).endswith("kernel") and x.ndim > 1

    def matrices(params: Tree, wanted: bool = True) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda path, x: is_matrix(path, x) == wanted, params)

    def rows(x: jax.Array) -> tuple[int, ...]:  # nn.scan stacks kernels along a first axis: each is a matrix of its own
        return (-4, -3, -2) if x.ndim > 3 else (-2,)

    def scaled(update: jax.Array) -> jax.Array:
        height, width = math.prod(update.shape[axis] for axis in rows(update)), update.shape[-1]
        return update * (rms * max(height, width) ** 0.5 if rms else max(1, width / height) ** 0.5)

    orthogonal = optax.contrib.scale_by_muon(
        beta=momentum,
        nesterov=nesterov,
        weight_dimension_numbers=lambda updates: jax.tree.map(
            lambda x: optax.contrib.MuonDimensionNumbers(rows(x), -1), updates
        ),
    )
    return optax.chain(
        optax.masked(optax.chain(orthogonal, optax.stateless(lambda u, _: jax.tree.map(scaled, u))), matrices),
        optax.masked(optax.scale_by_adam(b1, b2, eps), lambda params: matrices(params, wanted=False)),
        weight_decay,
    )


def lbfgs(weight_decay: Transform, memory: int = 10, search: int = 20) -> Wrapped:
    """L-BFGS (Liu & Nocedal 1989) of so many past steps, each as long as a line search of up to `search` tries has it.

    Second order, for small networks and batches as large as the training split: the search is on the loss of the batch,
    with weight decay, lambda |w|^2 / 2, as a part of it. The rate multiplies the length it finds: lr=1 leaves it.
    """
    find = optax.scale_by_zoom_linesearch(search, initial_guess_strategy="one")
    rule = optax.chain(optax.scale_by_lbfgs(memory), optax.scale(-1.0), find, optax.scale(-1.0))

    def decayed(updates: Tree, params: Tree) -> Tree:
        return weight_decay.update(updates, optax.EmptyState(), params)[0]

    def update(updates: Tree, state: Tree, params: Tree = None, **more: Any) -> tuple[Tree, Tree]:
        def objective(params: Tree) -> jax.Array:
            decay = decayed(optax.tree.zeros_like(params), params)
            return more["value_fn"](params) + 0.5 * optax.tree.vdot(params, decay)

        grads = decayed(updates, params)
        return rule.update(grads, state, params, value=objective(params), grad=grads, value_fn=objective)

    def init(params: Tree) -> Tree:  # with the types that it has after a step, which is compiled once then
        return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), rule.init(params))

    return Wrapped(init, update)


OPTIMIZERS = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
    "lars": lars,
    "lamb": lamb,
    "muon": muon,
    "lbfgs": lbfgs,
}


class LookaheadState(NamedTuple):
    """The state of the optimiser inside, the steps taken, and the slow weights."""

    inner: optax.OptState
    count: jax.Array
    slow: Tree


def lookahead(inner: Wrapped, every: int = 5, share: float = 0.5) -> Wrapped:
    """Each `every` steps slow weights go that share of the way to the fast ones, which go on from there.

    Zhang, Lucas, Hinton, Ba: Lookahead Optimizer. NeurIPS 2019, arXiv:1907.08610, Algorithm 1. The slow weights are
    evaluated. Unlike optax's, it keeps them in its state, so that parameters remain what they are.
    """
    if every < 1 or not 0 < share <= 1:
        raise InputError(f"lookahead: every = {every!r}, share = {share!r}: expected at least 1, and above 0 up to 1")

    def init(params: Tree) -> LookaheadState:
        return LookaheadState(inner.init(params), jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Tree, state: Any, params: Tree = None, **more: Any) -> tuple[Tree, LookaheadState]:
        updates, of_inner = inner.update(updates, state.inner, params, **more)
        count = state.count + 1
        now = jnp.where(count % every == 0, share, 0.0)
        slow = jax.tree.map(lambda s, p, u: s + now * (p + u - s), state.slow, params, updates)
        updates = jax.tree.map(lambda u, s, p: jnp.where(now > 0, s - p, u), updates, slow, params)
        return updates, LookaheadState(of_inner, count, slow)

    return Wrapped(init, update)


def schedule_free(inner: Wrapped, rate: optax.Schedule, b1: float = 0.9, power: float = 2.0) -> Wrapped:
    """Gradients are taken between the optimiser's point and the average of its points, which is evaluated.

    Defazio et al.: The Road Less Scheduled. NeurIPS 2024, arXiv:2405.15682: for a constant rate after a warm-up, and an
    optimiser without momentum, whose place `b1` takes. A step weighs in the average as its rate to `power`. Statistics
    of batch normalisation remain those of the points that gradients are taken at.
    """
    if not 0 < b1 <= 1:
        raise InputError(f"schedule_free: b1 = {b1!r}: expected above 0, up to 1")
    return optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1, power)  # it counts from 1


WRAPPERS = {"lookahead": lookahead, "schedule_free": schedule_free}


def eval_params(opt_state: Tree, params: Tree) -> Tree:
    """What a wrapper has evaluated in place of the parameters; {} without a wrapper."""
    match opt_state:
        case LookaheadState():
            return opt_state.slow
        case optax.contrib.ScheduleFreeState():
            return optax.contrib.schedule_free_eval_params(opt_state, params)
    return {}
