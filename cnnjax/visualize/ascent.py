"""Gradient ascent from noise to images that excite their channels: the loop of `cnnjax.visualize.optimize`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.augment import geometry
from cnnjax.state import Tree
from cnnjax.visualize import image_prior
from cnnjax.visualize.excitation import Excitation
from cnnjax.visualize.image_prior import ImagePrior

SHIFT, DEGREES, SCALE = 1 / 16, 5.0, 1.1  # largest random shift, as a fraction of a side, rotation and scale
LEARNING_RATE, LAST_RATE = 0.1, 0.05  # of Adam, for white coefficients; the last step's, as a fraction of the first's
STRICT = 0.5  # fraction of the steps in which the penalties count in full
LEAD = 1.0  # afterwards only at this lead over the best real image (standard deviations), not at all without one
STEPS_PER_CALL = 16  # of the compiled loop; a report of progress follows each call


@dataclasses.dataclass(frozen=True)
class Penalty:
    """Weighs what an image costs, in standard deviations of the excitation of its channel over real images.

    In the last steps the costs count only as far as an image excites its channel more than the best real one; see LEAD.

    Attributes:
      typical: weight of the mean squared standard score of the statistics of the earlier feature maps.
      code: weight of half the sum of squares of the code, that is, of the negative log-likelihood of the prior.
      noise: standard deviation of the Gaussian noise that each view has, for values in [0, 1].
    """

    typical: float = 0.0
    code: float = 0.0
    noise: float = 0.0


@dataclasses.dataclass(frozen=True)
class Targets:
    """The channels to excite, K of them.

    Attributes:
      channels: index of each, int32 [K].
      units: standard deviation of the excitation of each over real images, float32 [K].
      best: the largest excitation of each over real images, float32 [K].
      center: mean of each of the D statistics of earlier feature maps over real images, float32 [D]. D may be 0.
      spread: standard deviation of each, float32 [D].
    """

    channels: np.ndarray
    units: np.ndarray
    best: np.ndarray
    center: np.ndarray
    spread: np.ndarray


def ascend(
    excitation: Excitation, variables: Tree, prior: ImagePrior, targets: Targets, penalty: Penalty, *, steps: int,
    batch_size: int, seed: int, progress: Callable[[int, int], None],
) -> np.ndarray:  # fmt: skip
    """Returns an image for each channel, float32 [K, H, W, C] in (0, 1), after `steps` steps of Adam.

    The image of a channel depends on `seed` and on the channel, not on the other channels. `progress` is called with
    the number of steps done and the total.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps, LAST_RATE))
    loss = _make_loss(excitation, prior, targets, penalty)

    def step(number: Any, carry: Any, variables: Tree, rows: tuple[jax.Array, ...], keys: jax.Array) -> Any:
        code, state = carry
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        gradient = jax.grad(loss)(code, variables, *rows, step_keys, number >= STRICT * steps)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(code, updates), state

    @jax.jit
    def advance(carry: Any, start: Any, stop: Any, *arguments: Any) -> Any:
        return jax.lax.fori_loop(start, stop, lambda number, carry: step(number, carry, *arguments), carry)

    count, images = len(targets.channels), []
    size = min(batch_size, count)
    batches = -(-count // size)
    for batch in range(batches):
        chosen = np.minimum(np.arange(batch * size, (batch + 1) * size), count - 1)  # the last batch repeats a channel
        rows = tuple(jnp.asarray(values[chosen]) for values in (targets.channels, targets.units, targets.best))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows[0])
        code = jax.vmap(lambda key: jax.random.normal(key, prior.mean.shape))(keys)
        carry: Any = code, optimizer.init(code)
        for start in range(0, steps, STEPS_PER_CALL):
            stop = min(start + STEPS_PER_CALL, steps)
            carry = jax.block_until_ready(advance(carry, start, stop, variables, rows, keys))
            progress(batch * steps + stop, batches * steps)
        images.append(np.asarray(image_prior.decode(prior, carry[0])))
    return np.concatenate(images)[:count]


def _make_loss(excitation: Excitation, prior: ImagePrior, targets: Targets, penalty: Penalty) -> Callable[..., Any]:
    """Returns the function (code [B, H, W, C], variables, channels, units, best, keys [B], late) -> sum of B losses."""
    center, spread = jnp.asarray(targets.center)[None], jnp.asarray(targets.spread)[None]

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        return transform(keys[0], image) + penalty.noise * jax.random.normal(keys[1], image.shape)

    def loss(
        code: jax.Array, variables: Tree, channels: jax.Array, units: jax.Array, best: jax.Array, keys: jax.Array,
        late: jax.Array,
    ) -> jax.Array:  # fmt: skip
        views = jax.vmap(view)(keys, image_prior.decode(prior, code))
        if penalty.typical and targets.center.size:
            values, statistics = excitation.with_statistics(variables, views)
            costs = penalty.typical * jnp.square((statistics - center) / spread).mean(axis=1)
        else:
            values, costs = excitation.of_channels(variables, views), jnp.zeros(len(code))
        costs = costs + penalty.code * jnp.square(code).sum(axis=(1, 2, 3)) / 2
        gains = (jnp.take_along_axis(values, channels[:, None], axis=1)[:, 0] - best) / units
        weights = jnp.where(late, jax.lax.stop_gradient(jnp.clip(gains / LEAD, 0, 1)), 1)
        return (weights * costs - gains).sum()

    return loss


def transform(key: jax.Array, image: jax.Array) -> jax.Array:
    """Shifts, rotates and scales an image [H, W, C] at random, within SHIFT, DEGREES and SCALE.

    The image is mirrored at its borders.
    """
    height, width, _ = image.shape
    shift_key, turn_key, scale_key = jax.random.split(key, 3)
    reach = max(height, width) * (SHIFT + (SCALE - 1 + np.deg2rad(DEGREES)) / 2)
    margin = min(int(reach) + 2, height - 1, width - 1)
    x, y = jax.random.uniform(shift_key, (2,), minval=-SHIFT, maxval=SHIFT) * jnp.array([width, height])
    angle = jnp.deg2rad(jax.random.uniform(turn_key, minval=-DEGREES, maxval=DEGREES))
    factor = jnp.exp(jax.random.uniform(scale_key, minval=-np.log(SCALE), maxval=np.log(SCALE)))
    cosine, sine = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    matrix = jnp.stack([jnp.stack([cosine, -sine, x]), jnp.stack([sine, cosine, y])])
    padded = jnp.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
    return geometry.warp(padded, jnp.zeros((1, 1, 1)), matrix)[margin : margin + height, margin : margin + width]
