"""Optimizers, and wrappers that average their parameters.

An optimizer is a function of its settings that returns an optax transformation. It is given `weight_decay`, the
transformation that adds the decay to the gradient, and chains it before the moments (L2 regularization) or after them
(decoupled), as its paper does. The result is an ascent direction: `optim.build` appends the learning rate.

A wrapper is a function of `inner`, the complete update rule with its learning rate. Its averaged parameters are
evaluated (`eval_params`); gradients are taken at `TrainState.params`.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.errors import InputError
from cnnjax.optim.masks import path_mask
from cnnjax.spec import BelowOne, Count, NonNegative, Positive, PositiveFraction, Range
from cnnjax.state import Tree, path_name

Transform = optax.GradientTransformation
Wrapped = optax.GradientTransformationExtraArgs


def _momentum(momentum: float, nesterov: bool = False) -> Transform:
    """Returns optax.trace, or the identity if `momentum` is 0."""
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def sgd(weight_decay: Transform, momentum: BelowOne = 0.0, nesterov: bool = False) -> Transform:
    """Stochastic gradient descent with PyTorch's momentum: v = momentum * v + g, and the learning rate multiplies v.

    `weight_decay` is added to the gradient first (L2).
    """
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True needs a momentum, as in sgd(momentum=0.9, nesterov=True)")
    return optax.chain(weight_decay, _momentum(momentum, nesterov))


def adagrad(weight_decay: Transform, eps: NonNegative = 1e-10, initial: NonNegative = 0.0) -> Transform:
    """Adagrad (Duchi et al. 2011): divides the gradient by the root of its accumulated squares.

    `initial` is the accumulator before the first step: 0 in PyTorch, 0.1 in TensorFlow. `eps` is inside the root, where
    PyTorch adds it to the root: gradients far below sqrt(eps) take smaller steps than there. `weight_decay` is added to
    the gradient first (L2).
    """
    return optax.chain(weight_decay, optax.scale_by_rss(initial, eps))


def rmsprop(
    weight_decay: Transform, decay: BelowOne = 0.9, eps: NonNegative = 1e-8, momentum: BelowOne = 0.0, tf: bool = False
) -> Transform:
    """RMSProp (Hinton 2012, lecture 6e): divides the gradient by the root of a moving average of its squares.

    `weight_decay` is added to the gradient first (L2). `decay` is the fraction of the average that is kept. With `tf`,
    `eps` is inside the root and the average starts at 1, as in TensorFlow: the Inception networks were trained with
    rmsprop(decay=0.9, eps=1.0, momentum=0.9, tf=True). Otherwise `eps` is added to the root, and the average starts at
    0. The current learning rate multiplies the whole momentum, as in `sgd`; TensorFlow's momentum accumulates steps of
    past learning rates.
    """
    rms = optax.scale_by_rms(decay, eps, initial_scale=1.0 if tf else 0.0, eps_in_sqrt=tf)
    return optax.chain(weight_decay, rms, _momentum(momentum))


def adam(weight_decay: Transform, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NonNegative = 1e-8) -> Transform:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1). `weight_decay` is added to the gradient first (L2)."""
    return optax.chain(weight_decay, optax.scale_by_adam(b1, b2, eps))


def adamw(weight_decay: Transform, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NonNegative = 1e-8) -> Transform:
    """AdamW: Adam with decoupled weight decay, which is multiplied by the learning rate as in PyTorch.

    Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps), weight_decay)


def lion(weight_decay: Transform, b1: BelowOne = 0.9, b2: BelowOne = 0.99) -> Transform:
    """Lion: the sign of a momentum, with decoupled weight decay (Chen et al. 2023, arXiv:2302.06675, Algorithm 2).

    Use a learning rate 3 to 10 times smaller than AdamW's, and a weight decay 3 to 10 times larger (sec. 5).
    """
    return optax.chain(optax.scale_by_lion(b1, b2), weight_decay)


def _scale_by_trust_ratio(coefficient: float) -> Transform:
    """Rescales the update of each kernel to the norm `coefficient` * |kernel|. Other updates stay as they are."""
    return optax.masked(
        optax.scale_by_trust_ratio(trust_coefficient=coefficient), lambda params: path_mask("kernel$", params)
    )


def lars(
    weight_decay: Transform, momentum: BelowOne = 0.9, nesterov: bool = False, trust: Positive = 0.001
) -> Transform:
    """LARS: SGD with each kernel's update first scaled to the norm trust * |kernel|, for very large batches.

    You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks. arXiv:1708.03888, 2017, Algorithm 1. It is
    for batches of 8,000 images and more. `weight_decay` is added to the gradient before the scaling. As in MLPerf,
    biases and normalization parameters are not scaled. The current learning rate multiplies the whole momentum, as in
    `sgd`.
    """
    return optax.chain(weight_decay, _scale_by_trust_ratio(trust), optax.trace(momentum, nesterov))


def lamb(weight_decay: Transform, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NonNegative = 1e-6) -> Transform:
    """LAMB: AdamW with each kernel's update scaled to the kernel's norm (You et al. 2020, arXiv:1904.00962, Alg. 2).

    `weight_decay` is added to Adam's update before the scaling.
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps), weight_decay, _scale_by_trust_ratio(1.0))


def _row_axes(kernel: jax.Array) -> tuple[int, ...]:
    """Returns the axes of a kernel that are the rows of its matrix: all but the last, output channels.

    A first axis along which nn.scan stacks kernels is none of these.
    """
    return (-4, -3, -2) if kernel.ndim > 3 else (-2,)


def _orthogonalize(
    momentum: float, nesterov: bool, steps: int, scale: Callable[[jax.Array, jax.Array], jax.Array | float]
) -> Transform:
    """Replaces gradients of kernels by their momenta, orthogonalized in `steps` Newton-Schulz iterations.

    A kernel [k, k, in, out] is treated as the matrix [k * k * in, out]. Each result is multiplied by `scale` of it and
    of the kernel.
    """
    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=steps,
        beta=momentum,
        nesterov=nesterov,
        weight_dimension_numbers=lambda updates: jax.tree.map(
            lambda x: optax.contrib.MuonDimensionNumbers(_row_axes(x), -1), updates
        ),
    )
    scaled = optax.stateless(lambda updates, params: jax.tree.map(lambda u, p: u * scale(u, p), updates, params))
    return optax.chain(orthogonal, scaled)


def _kernel_mask(params: Tree, least_ndim: int, kernels: bool = True) -> Tree:
    """Returns a tree of booleans: kernels of at least `least_ndim` axes or, with `kernels` False, all others."""

    def is_kernel(path: tuple, x: jax.Array) -> bool:
        return path_name(path).endswith("kernel") and x.ndim >= least_ndim

    return jax.tree_util.tree_map_with_path(lambda path, x: is_kernel(path, x) == kernels, params)


def muon(
    weight_decay: Transform,
    momentum: BelowOne = 0.95,
    nesterov: bool = True,
    rms: NonNegative = 0.2,
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.999,
    eps: NonNegative = 1e-8,
) -> Transform:
    """Muon for kernels: orthogonalized momentum (Jordan et al. 2024, kellerjordan.github.io/posts/muon). Others: AdamW.

    A kernel [k, k, in, out] is treated as the matrix [k * k * in, out]. Its update is scaled by rms * sqrt(max(rows,
    columns)), so that the learning rate of AdamW suits both (Liu et al. 2025, arXiv:2502.16982, sec. 2.2). rms=0
    selects Jordan's scale, sqrt(max(1, columns / rows)). `momentum` and `nesterov` are Muon's; `b1`, `b2` and `eps` are
    Adam's. Weight decay is decoupled.
    """

    def scale(update: jax.Array, kernel: jax.Array) -> float:
        height, width = math.prod(update.shape[axis] for axis in _row_axes(update)), update.shape[-1]
        return rms * max(height, width) ** 0.5 if rms else max(1, width / height) ** 0.5

    return optax.chain(
        optax.masked(_orthogonalize(momentum, nesterov, 5, scale), lambda params: _kernel_mask(params, 2)),
        optax.masked(optax.scale_by_adam(b1, b2, eps), lambda params: _kernel_mask(params, 2, kernels=False)),
        weight_decay,
    )


def muon_sgd(
    weight_decay: Transform, momentum: BelowOne = 0.6, steps: Count = 3, sgd_momentum: BelowOne = 0.85
) -> Transform:
    """Muon for the kernels of convolutions, relative to the norm of each. Others: SGD. Both have Nesterov's momentum.

    This is the rule of Jordan's record on CIFAR-10 (2024, github.com/KellerJordan/cifar10-airbench). A kernel [k, k,
    in, out] is treated as the matrix [k * k * in, out], and orthogonalized in `steps` iterations. Its update is scaled
    by |kernel| / sqrt(out): lr=0.1 changes it by a tenth of its norm. Jordan rescales the kernel to the norm sqrt(out)
    instead, which is the same where a normalization follows the convolution. `momentum` is Muon's. `weight_decay` is
    added to the gradient first (L2): leave the kernels of convolutions out of config.decay_mask.
    """

    def scale(update: jax.Array, kernel: jax.Array) -> jax.Array:
        norm = jnp.sqrt(jnp.sum(kernel**2, axis=(*_row_axes(kernel), -1), keepdims=True))
        return jnp.where(norm > 0, norm / kernel.shape[-1] ** 0.5, 1.0)  # a kernel of zeros could never move

    return optax.chain(
        weight_decay,
        optax.masked(_orthogonalize(momentum, True, steps, scale), lambda params: _kernel_mask(params, 4)),
        optax.masked(optax.trace(sgd_momentum, True), lambda params: _kernel_mask(params, 4, kernels=False)),
    )


def lbfgs(
    weight_decay: Transform, memory: Annotated[int, Range(1, 1000)] = 10, search: Annotated[int, Range(1, 1000)] = 20
) -> Wrapped:
    """L-BFGS (Liu & Nocedal 1989), a quasi-Newton method for small networks and full-batch training.

    `memory` is the number of past steps that approximate the Hessian. A zoom line search with at most `search`
    evaluations of the batch's loss sets the length of each step. That loss includes weight decay as (lambda / 2) |w|^2.
    The learning rate multiplies the step: use lr=1.
    """
    line_search = optax.scale_by_zoom_linesearch(search, initial_guess_strategy="one")
    rule = optax.chain(optax.scale_by_lbfgs(memory), optax.scale(-1.0), line_search, optax.scale(-1.0))

    def add_decay(updates: Tree, params: Tree) -> Tree:
        return weight_decay.update(updates, optax.EmptyState(), params)[0]

    def update(updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        def objective(params: Tree) -> jax.Array:
            decay = add_decay(optax.tree.zeros_like(params), params)
            return extra["value_fn"](params) + 0.5 * optax.tree.vdot(params, decay)

        grads = add_decay(updates, params)
        return rule.update(grads, state, params, value=objective(params), grad=grads, value_fn=objective)

    def init(params: Tree) -> Tree:  # with the types of the state after a step, so that the step is compiled once
        return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), rule.init(params))

    return Wrapped(init, update)


OPTIMIZERS: dict[str, Callable[..., Transform]] = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
    "lars": lars,
    "lamb": lamb,
    "muon": muon,
    "muon_sgd": muon_sgd,
    "lbfgs": lbfgs,
}


class LookaheadState(NamedTuple):
    """The optimizer state of `lookahead`.

    Attributes:
      inner: state of the wrapped optimizer.
      count: int32 [], steps taken.
      slow: the slow weights, a tree like the parameters.
    """

    inner: optax.OptState
    count: jax.Array
    slow: Tree


def lookahead(inner: Wrapped, every: Count = 5, share: PositiveFraction = 0.5) -> Wrapped:
    """Lookahead: every `every` steps, moves slow weights toward the fast weights, and resets the fast weights to them.

    Zhang, Lucas, Hinton, Ba: Lookahead Optimizer. NeurIPS 2019, arXiv:1907.08610, Algorithm 1. The fast weights are
    those that `inner` updates. `share` is the fraction of the distance that the slow weights move. Evaluation uses the
    slow weights. They are in the optimizer state; optax.lookahead makes them part of the parameters instead.
    """

    def init(params: Tree) -> LookaheadState:
        return LookaheadState(inner.init(params), jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, LookaheadState]:
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        count = state.count + 1
        fraction = jnp.where(count % every == 0, share, 0.0)
        slow = jax.tree.map(lambda s, p, u: s + fraction * (p + u - s), state.slow, params, updates)
        updates = jax.tree.map(lambda u, s, p: jnp.where(fraction > 0, s - p, u), updates, slow, params)
        return updates, LookaheadState(inner_state, count, slow)

    return Wrapped(init, update)


def schedule_free(
    inner: Wrapped, rate: optax.Schedule, b1: PositiveFraction = 0.9, power: NonNegative = 2.0
) -> Wrapped:
    """Schedule-Free: evaluates an average x of the iterates z of `inner`, takes gradients at b1 * x + (1 - b1) * z.

    Defazio et al.: The Road Less Scheduled. NeurIPS 2024, arXiv:2405.15682. `rate` is the learning rate of `inner` at a
    step; an iterate has the weight (largest rate so far) ** power in the average. Use a constant schedule after a
    warm-up, and an optimizer without momentum, which `b1` replaces. BatchNorm's running statistics are those of the
    points where gradients are taken.
    """
    return optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1, power)  # it counts from 1


WRAPPERS: dict[str, Callable[..., Wrapped]] = {"lookahead": lookahead, "schedule_free": schedule_free}


def eval_params(opt_state: Tree, params: Tree) -> Tree:
    """Returns the averaged parameters that evaluation uses with a wrapper; {} without a wrapper.

    `opt_state` is the optimizer state; `params` are the parameters at which gradients are taken.
    """
    match opt_state:
        case LookaheadState():
            return opt_state.slow
        case optax.contrib.ScheduleFreeState():
            return optax.contrib.schedule_free_eval_params(opt_state, params)
    return {}
