"""Metrics: sums over examples, whose grouping into batches and devices does not change the result.

`METRICS` has one row for each metric. Training, evaluation, progress lines, monitors, the best checkpoint, sweeps and
reports read its rows, so a new row is all that a new metric needs, also one from outside the package
(`METRICS["name"] = Metric("name", ...)`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Sums = dict[str, np.ndarray]  # metric -> its sum over some examples, and "count" -> how many these are

EXAMPLES_PER_CHUNK = 1000  # of `evaluate`, which holds several arrays of [EXAMPLES_PER_CHUNK, K]


def _divide(total: np.ndarray, count: float) -> float:
    return float(total) / count


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of labeled examples: how it is computed, compared and shown.

    `batch_sum(logits [N, K], label int [N], loss float32 [N], mask bool [N])` returns an array of any shape, such as
    [] or [K], which is added over all batches. It is compiled with the step, and must leave out the examples whose
    mask is False. Keep counts integer: these are summed exactly.
    `mean(total, count)` turns the sum over `count` examples, as float64 or int64 of the same shape, into a number.
    """

    name: str  # key in metrics.jsonl and `METRICS`
    batch_sum: Callable[[Array, Array, Array, Array], Array]
    higher_is_better: bool = True
    format_spec: str = ".4f"  # ".2%" shows a fraction as a percentage
    title: str = ""  # heading in tables; '' for `name`
    in_progress: bool = True  # whether progress bars and validation lines show it
    mean: Callable[[np.ndarray, float], float] = _divide

    @property
    def heading(self) -> str:
        """The heading of its column in a table."""
        return self.title or self.name

    @property
    def sign(self) -> float:
        """1.0 when higher values are better, else -1.0: `sign * value` is to be maximized."""
        return 1.0 if self.higher_is_better else -1.0

    def format(self, value: float | None) -> str:
        """Returns the value as people read it, '-' for None (undefined)."""
        return "-" if value is None else format(value, self.format_spec)


def rank(logits: Array, label: Array) -> Array:
    """Returns the rank of the true class among the K logits, int [N]: 0 is a top-1 hit.

    Equal logits are ordered by class index; NaN comes last. The rank is K where the true class's logit is NaN.
    """
    true_logit = jnp.take_along_axis(logits, label[:, None], axis=-1)
    earlier_class = jnp.arange(logits.shape[-1])[None] < label[:, None]
    ahead = (logits > true_logit) | ((logits == true_logit) & earlier_class)
    return jnp.where(jnp.isnan(true_logit[:, 0]), logits.shape[-1], ahead.sum(axis=-1))


def _loss(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    return jnp.where(mask, loss, 0).sum()


def _top1(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    return (mask & (rank(logits, label) < 1)).sum()


def _top5(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    return (mask & (rank(logits, label) < min(5, logits.shape[-1]))).sum()


_ROWS = (
    Metric("loss", _loss, higher_is_better=False),
    Metric("accuracy", _top1, format_spec=".2%"),
    # With fewer than five classes each prediction is a top-5 hit.
    Metric("top5", _top5, format_spec=".2%", title="top-5", in_progress=False),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}


def sums(logits: Array, label: Array, loss: Array, mask: Array | None = None) -> dict[str, Array]:
    """Returns the sum of each metric over a batch, and the number of examples as "count".

    `logits` is [N, K], `label` int [N], `loss` float32 [N]; `mask` bool [N] is False for padding, None without any.
    """
    mask = jnp.ones(label.shape, bool) if mask is None else mask
    return {"count": mask.sum()} | {name: row.batch_sum(logits, label, loss, mask) for name, row in METRICS.items()}


def add(several: Sequence[Mapping[str, np.ndarray]]) -> Sums:
    """Adds the sums of several batches, in int64 and float64."""
    exact = [{name: np.asarray(x, np.float64 if x.dtype.kind == "f" else np.int64) for name, x in batch.items()}
             for batch in several]  # fmt: skip
    return {name: np.sum([batch[name] for batch in exact], axis=0) for name in exact[0]}


def means(total: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the value of each metric from its sum: {"loss", "accuracy", "top5", ...}; accuracies are in 0..1."""
    count = float(total["count"])
    return {name: row.mean(total[name], count) for name, row in METRICS.items()}


def evaluate(scores: np.ndarray, label: np.ndarray, loss: Callable[[Array, Array], Array]) -> dict[str, float]:
    """Returns the value of each metric for all examples of a split.

    `scores` is float32 [N, K], `label` int [N], `loss` a function of logits and one-hot targets [N, K] to [N].
    """
    total: Sums | None = None
    for i in range(0, len(scores), EXAMPLES_PER_CHUNK):
        logits, labels = jnp.asarray(scores[i : i + EXAMPLES_PER_CHUNK]), jnp.asarray(label[i : i + EXAMPLES_PER_CHUNK])
        chunk = jax.device_get(sums(logits, labels, loss(logits, jax.nn.one_hot(labels, scores.shape[1]))))
        total = add([total, chunk] if total else [chunk])
    return means(total or {})


def format_value(name: str, value: float) -> str:
    """Formats a logged value by the row of its metric; `name` may have a prefix, as in 'val/accuracy'."""
    row = METRICS.get(name.rpartition("/")[2])
    return row.format(value) if row else f"{value:.4g}"


def describe(values: Mapping[str, float], separator: str = ", ") -> str:
    """Returns the metrics of a progress line, 'loss 0.1234, accuracy 98.00%'."""
    return separator.join(f"{name} {row.format(values[name])}" for name, row in METRICS.items() if row.in_progress)
