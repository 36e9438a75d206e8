"""Metrics are sums with a count, so that any grouping of the examples gives the same result."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Sums = dict[str, np.ndarray]


def rank(logits: Array, label: Array) -> Array:
    """How many classes come before the right one, [N]: 0 is a hit. Equal logits go by class number; NaN is last.

    All K do where the right one's is NaN: that is no prediction.
    """
    right = jnp.take_along_axis(logits, label[:, None], axis=-1)
    before = (logits > right) | ((logits == right) & (jnp.arange(logits.shape[-1])[None] < label[:, None]))
    return jnp.where(jnp.isnan(right[:, 0]), logits.shape[-1], before.sum(axis=-1))


def sums(logits: Array, label: Array, loss: Array, mask: Array | None = None) -> dict[str, Array]:
    """Totals over a batch: examples, loss, top-1 and top-5 hits. `mask` [N] is False for padding.

    With fewer than five classes each prediction is a top-5 hit.
    """
    mask = jnp.ones(label.shape, bool) if mask is None else mask
    position = rank(logits, label)
    return {
        "count": mask.sum(),
        "loss": jnp.where(mask, loss, 0).sum(),
        "top1": (mask & (position < 1)).sum(),
        "top5": (mask & (position < min(5, logits.shape[-1]))).sum(),
    }


def add(parts: list[Sums]) -> Sums:
    """The sum of the sums, in integers and double precision."""
    exact = [{name: np.asarray(x, np.float64 if x.dtype.kind == "f" else np.int64) for name, x in part.items()}
             for part in parts]  # fmt: skip
    return {name: np.sum([part[name] for part in exact], axis=0) for name in exact[0]}


def means(total: Sums) -> dict[str, float]:
    """Mean loss, accuracy (top-1) and top-5 accuracy, the last two from 0 to 1."""
    count = float(total["count"])
    return {"loss": float(total["loss"]) / count, "accuracy": float(total["top1"]) / count,
            "top5": float(total["top5"]) / count}  # fmt: skip
