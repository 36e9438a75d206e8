"""A measurement, with all that it takes to compare it with another."""

import dataclasses
import datetime
import importlib.metadata
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import jax

from cnnjax.config import Config
from cnnjax.data.pipeline import cores
from cnnjax.ops.convolution import implementation_name


@dataclasses.dataclass
class Row:
    """A measurement: a line of the CSV. What a measurement does not have is None."""

    date: str
    machine: str
    cores: int
    devices: int
    python: str
    jax: str
    jaxlib: str
    convolutions: str  # by what they are computed
    model: str
    batch: int
    input: str  # height x width x channels
    dtype: str
    what: str
    seconds: float | None = None  # of a step, or of a start: the median, and the quartiles
    seconds_q1: float | None = None
    seconds_q3: float | None = None
    repeats: int | None = None
    steps_per_second: float | None = None
    images_per_second: float | None = None
    flops_per_second: float | None = None
    roofline: float | None = None  # the share of what can be reached
    compile_seconds: float | None = None
    memory_bytes: int | None = None
    peer: str | None = None
    ratio: float | None = None  # our wall time by the peer's: the median of pairs, and the quartiles
    ratio_q1: float | None = None
    ratio_q3: float | None = None
    pairs: int | None = None


def new(config: Config, shape: tuple[int, ...], what: str) -> Row:
    """A row without measurements: what of the config's network, for images of this shape, where and when."""
    size = "x".join(map(str, shape))
    return Row(**machine(), model=config.model, batch=config.batch_size, input=size, dtype=config.dtype, what=what)


def add_times(row: Row, times: Sequence[float]) -> None:
    """Enters the seconds of what was repeated, and of steps the rates that follow."""
    row.seconds_q1, row.seconds, row.seconds_q3 = quartiles(times)
    row.repeats = len(times)
    if not row.what.startswith("start"):
        row.steps_per_second, row.images_per_second = 1 / row.seconds, row.batch / row.seconds


def add_ratios(row: Row, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Enters how our time compares with the peer's, block by block."""
    row.ratio_q1, row.ratio, row.ratio_q3 = quartiles([mine / other for mine, other in zip(ours, theirs, strict=True)])
    row.pairs = len(ours)


def machine() -> dict[str, Any]:
    """Where and with what is measured: the first columns of a row."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "machine": _cpu() if device.platform == "cpu" else device.device_kind,
        "cores": cores(),
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "convolutions": implementation_name(jax.device_count()),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The first quartile, the median and the third; of one value, that."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
