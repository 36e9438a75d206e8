"""Metrics: sums over examples, whose grouping into batches and devices does not change the result.

`METRICS` has one row for each metric. Training, evaluation, progress lines, monitors, sweeps and reports read its rows,
so a new row is all that a new metric needs, also one from outside the package (`METRICS["name"] = Metric("name",
...)`). The best checkpoint is always that of the highest validation accuracy.
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
    """Returns total / count as a Python float: the default of `Metric.mean`."""
    return float(total) / count


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of labeled examples: how it is computed, compared and formatted.

    Attributes:
      name: key in metrics.jsonl and `METRICS`.
      batch_sum: (logits [N, K], label int [N], loss float32 [N], mask bool [N]) -> array of any shape, such as [] or
        [K], which is added over all batches. It is jitted, and must leave out examples whose mask is False. Integer
        results are summed exactly.
      higher_is_better: False for losses and errors.
      format_spec: Python format of the value; '.2%' shows a fraction as a percentage.
      title: heading in tables; '' for `name`.
      in_progress: whether progress bars and validation lines show it.
      mean: (sum, count) -> value. The sum over `count` examples is an array of float64 or int64. By default sum /
        count.
    """

    name: str
    batch_sum: Callable[[Array, Array, Array, Array], Array]
    higher_is_better: bool = True
    format_spec: str = ".4f"
    title: str = ""
    in_progress: bool = True
    mean: Callable[[np.ndarray, float], float] = _divide

    @property
    def heading(self) -> str:
        """Returns the metric's heading in tables: `title`, or `name` if that is ''."""
        return self.title or self.name

    @property
    def sign(self) -> float:
        """Returns 1.0 if higher values are better, else -1.0, so that `sign * value` is to be maximized."""
        return 1.0 if self.higher_is_better else -1.0

    def format(self, value: float | None) -> str:
        """Formats a value by `format_spec`; None, an undefined value, gives '-'."""
        return "-" if value is None else format(value, self.format_spec)


def rank(logits: Array, label: Array) -> Array:
    """Returns the rank of the true class among the K classes by descending logit, int [N]: 0 is a top-1 hit.

    Equal logits are ordered by class index. A NaN logit ranks last. The rank is K if the true class's own logit is NaN.
    """
    true_logit = jnp.take_along_axis(logits, label[:, None], axis=-1)
    earlier_class = jnp.arange(logits.shape[-1])[None] < label[:, None]
    ahead = (logits > true_logit) | ((logits == true_logit) & earlier_class)
    return jnp.where(jnp.isnan(true_logit[:, 0]), logits.shape[-1], ahead.sum(axis=-1))


def predictions(scores: np.ndarray) -> np.ndarray:
    """Returns the predicted class of each example, int64 [N]: that of `rank` 0, or -1 where all scores are NaN.

    `scores` are float [N, K]. NumPy's argmax would return the class of the first NaN.
    """
    ordered = np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=np.finfo(scores.dtype).min)
    return np.where(np.isnan(scores).all(axis=1), -1, ordered.argmax(axis=1))


def _loss(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    """Sums the losses of the examples that `mask` keeps."""
    return jnp.where(mask, loss, 0).sum()


def _top1(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    """Counts the top-1 hits among the examples that `mask` keeps."""
    return (mask & (rank(logits, label) < 1)).sum()


def _top5(logits: Array, label: Array, loss: Array, mask: Array) -> Array:
    """Counts the top-5 hits among the examples that `mask` keeps; with K < 5, those whose true logit is not NaN."""
    return (mask & (rank(logits, label) < min(5, logits.shape[-1]))).sum()


_ROWS = (
    Metric("loss", _loss, higher_is_better=False),
    Metric("accuracy", _top1, format_spec=".2%"),
    # With fewer than five classes each prediction is a top-5 hit.
    Metric("top5", _top5, format_spec=".2%", title="top-5", in_progress=False),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}


def sums(logits: Array, label: Array, loss: Array, mask: Array | None = None) -> dict[str, Array]:
    """Returns the sum of each metric in `METRICS` over a batch by name, and the number of examples as "count".

    `logits` is [N, K], `label` int [N], `loss` float32 [N]. `mask`, bool [N], is False for padding; None counts all
    examples.
    """
    mask = jnp.ones(label.shape, bool) if mask is None else mask
    return {"count": mask.sum()} | {name: row.batch_sum(logits, label, loss, mask) for name, row in METRICS.items()}


def add(several: Sequence[Mapping[str, np.ndarray]]) -> Sums:
    """Adds the metric sums of several batches by name, integers in int64 and floats in float64."""
    exact = [{name: np.asarray(x, np.float64 if x.dtype.kind == "f" else np.int64) for name, x in batch.items()}
             for batch in several]  # fmt: skip
    return {name: np.sum([batch[name] for batch in exact], axis=0) for name in exact[0]}


def means(total: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Converts metric sums to mean values: {"loss": ..., "accuracy": ..., "top5": ...}. Accuracies are in [0, 1]."""
    count = float(total["count"])
    return {name: row.mean(total[name], count) for name, row in METRICS.items()}


def evaluate(scores: np.ndarray, label: np.ndarray, loss: Callable[[Array, Array], Array]) -> dict[str, float]:
    """Computes the mean value of each metric in `METRICS` over all examples: {"loss": ..., "accuracy": ..., ...}.

    `scores` is float32 [N, K], `label` int [N]. `loss` is a function of scores and one-hot targets [n, K] that returns
    [n]. Works on EXAMPLES_PER_CHUNK examples at a time.
    """
    total: Sums | None = None
    for i in range(0, len(scores), EXAMPLES_PER_CHUNK):
        logits, labels = jnp.asarray(scores[i : i + EXAMPLES_PER_CHUNK]), jnp.asarray(label[i : i + EXAMPLES_PER_CHUNK])
        chunk = jax.device_get(sums(logits, labels, loss(logits, jax.nn.one_hot(labels, scores.shape[1]))))
        total = add([total, chunk] if total else [chunk])
    return means(total or {})


def format_value(name: str, value: float) -> str:
    """Formats a logged value by the format of its metric, or with 4 significant digits for any other name.

    `name` may have a prefix, as in 'val/accuracy'.
    """
    row = METRICS.get(name.rpartition("/")[2])
    return row.format(value) if row else f"{value:.4g}"


def describe(values: Mapping[str, float], separator: str = ", ") -> str:
    """Formats the metrics with `in_progress` as one line: 'loss 0.1234, accuracy 98.00%'."""
    return separator.join(f"{name} {row.format(values[name])}" for name, row in METRICS.items() if row.in_progress)
