"""From a config to one optax transformation: clipping, weight decay, the optimiser, the learning rate's schedule.

An optimiser is a function of `decay`, the transformation that adds weight decay to the gradient, which it places
where its definition has it: before the moments (L2 regularisation) or after them (decoupled). A schedule is a
function of `steps`, which converts a duration to steps, and of `total`; it returns the share of the peak rate, from
0 to 1, as a function of the step.
"""

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from cnnjax import spec
from cnnjax.config import Config
from cnnjax.config import steps as steps_of
from cnnjax.errors import InputError
from cnnjax.state import Tree, path_name

Transform = optax.GradientTransformation
Steps = Callable[[str], int]


def sgd(decay: Transform, momentum: float = 0.0, nesterov: bool = False) -> Transform:
    """Gradient descent, with momentum v = momentum v + g where asked for (PyTorch's form: the rate multiplies v)."""
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True goes with a momentum, as in sgd(momentum=0.9, nesterov=True)")
    return optax.chain(decay, optax.trace(momentum, nesterov) if momentum else optax.identity())


def adam(decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transform:
    """Adam (Kingma & Ba 2015); weight decay is part of the gradient."""
    return optax.chain(decay, optax.scale_by_adam(b1, b2, eps))


def adamw(decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transform:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), scaled by the learning rate."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay)


def _by_layer(coefficient: float) -> Transform:
    """Gives the update of each kernel `coefficient` times the kernel's norm; biases and scales keep theirs."""
    return optax.masked(
        optax.scale_by_trust_ratio(trust_coefficient=coefficient), lambda params: matching("kernel$", params)
    )


def lars(decay: Transform, momentum: float = 0.9, nesterov: bool = False, trust: float = 0.001) -> Transform:
    """SGD with a rate for each layer, trust |w| / |g + decay|, for batches of 8,000 images and more.

    You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks. arXiv:1708.03888, 2017, Algorithm 1; the
    schedule's rate multiplies the momentum, as in `sgd`, and only kernels have rates of their own, as in MLPerf's.
    """
    return optax.chain(decay, _by_layer(trust), optax.trace(momentum, nesterov))


def lamb(decay: Transform, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> Transform:
    """AdamW with the update of each kernel as long as the kernel (You et al. 2020, arXiv:1904.00962, Algorithm 2)."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay, _by_layer(1.0))


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw, "lars": lars, "lamb": lamb}


def _with_warmup(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """Rises linearly to the schedule's own value over the first `warmup` steps, the first of which is not idle."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def constant(steps: Steps, warmup: str = "0 steps") -> optax.Schedule:
    """The peak throughout."""
    return _with_warmup(optax.constant_schedule(1.0), steps(warmup))


def piecewise(steps: Steps, at: Sequence[str], factor: float = 0.1, warmup: str = "0 steps") -> optax.Schedule:
    """Times `factor` at each of the durations `at`, counted from the start: piecewise(("32000 steps", "75%"))."""
    boundaries: dict[int, float] = {}
    for step in map(steps, (at,) if isinstance(at, str) else at):
        boundaries[step] = boundaries.get(step, 1.0) * factor  # two may round to the same step
    return _with_warmup(optax.piecewise_constant_schedule(1.0, boundaries), steps(warmup))


def cosine(steps: Steps, total: int, warmup: str = "0 steps", final: float = 0.0) -> optax.Schedule:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov & Hutter 2017)."""
    start = steps(warmup)
    decay = optax.cosine_decay_schedule(1.0, max(total - start, 1), final)
    return _with_warmup(lambda step: decay(jnp.maximum(step - start, 0)), start)


def polynomial(steps: Steps, total: int, power: float = 2.0, warmup: str = "0 steps") -> optax.Schedule:
    """A power of what is left of the training, from the end of the warm-up to 0: Caffe's 'poly'."""
    start = steps(warmup)
    return _with_warmup(optax.polynomial_schedule(1.0, 0.0, power, max(total - start, 1), start), start)


def one_cycle(total: int, steps: Steps, peak: str = "30%", start: float = 0.04, final: float = 0.0) -> optax.Schedule:
    """Linearly up from `start` to the peak, and linearly down to `final` (Smith & Topin 2019)."""
    top = max(steps(peak), 1)
    if top >= total:
        raise InputError(f"one_cycle: its peak at {peak!r} (step {top}) is not before the end (step {total})")
    up, down = optax.linear_schedule(start, 1.0, top), optax.linear_schedule(1.0, final, total - top)
    return optax.join_schedules([up, down], [top])


SCHEDULES = {
    "constant": constant,
    "piecewise": piecewise,
    "cosine": cosine,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
}


def matching(pattern: str, params: Tree) -> Tree:
    """True for the parameters whose path, such as 'stage1_block2/conv1/kernel', matches the regular expression."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from error
    mask = jax.tree_util.tree_map_with_path(lambda path, _: bool(expression.search(path_name(path))), params)
    if not any(jax.tree.leaves(mask)):
        one = path_name(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise InputError(f"{pattern!r} matches no parameter; one is {one!r}")
    return mask


def build_schedule(config: Config, epoch: float, total: int) -> optax.Schedule:
    """The learning rate as a function of the step. `epoch`: steps per epoch; `total`: steps of the training."""

    def steps(duration: str) -> int:
        return steps_of(duration, epoch=epoch, total=total)

    share = spec.build("schedule", config.schedule, SCHEDULES, steps=steps, total=total)
    return lambda step: config.lr * share(step)


def rate_factors(text: str, params: Tree) -> Tree:
    """The factor of the learning rate for each parameter: of 'PATTERN:FACTOR PATTERN:FACTOR', the first that matches.

    Raises InputError for a pattern that matches no parameter, and for what is no factor.
    """
    factors = jax.tree.map(lambda _: 1.0, params)
    for part in reversed(text.split()):
        pattern, _, number = part.rpartition(":")
        try:
            factor = float(number)
            if not 0 <= factor < float("inf"):
                raise ValueError
        except ValueError:
            raise InputError(f"config.lr_factors: {part!r}: expected PATTERN:FACTOR, as in 'bias$:2'") from None
        factors = jax.tree.map(lambda f, hit, new=factor: new if hit else f, factors, matching(pattern, params))
    return factors


def build(config: Config, params: Tree, schedule: optax.Schedule) -> Transform:
    """The whole update rule of a config; `params` may be shapes. Raises InputError for what does not exist."""
    factors = rate_factors(config.lr_factors, params)
    decay = optax.identity()
    if config.weight_decay:  # what decays loses the same share in each step, whatever its factor
        mask = matching(config.decay_mask, params)
        shares = jax.tree.map(
            lambda hit, factor: config.weight_decay / factor if hit and factor else 0.0, mask, factors
        )

        def decayed(update: jax.Array, p: jax.Array, share: float) -> jax.Array:
            return update + share * p if share else update

        decay = optax.stateless(lambda updates, params: jax.tree.map(decayed, updates, params, shares))
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    optimizer = spec.build("optimizer", config.optimizer, OPTIMIZERS, decay=decay)
    rules = [clip, optimizer, optax.scale_by_learning_rate(schedule)]
    if config.lr_factors:  # last, so that the states before it stand where they stand without
        rules.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    return optax.chain(*rules)
