"""A measurement, with everything needed to compare it with another."""

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
from cnnjax.distributed.devices import processor_name
from cnnjax.ops.convolution import implementation_name


@dataclasses.dataclass
class Row:
    """One measurement, a row of the CSV file. None stands for what was not measured.

    Attributes:
        date: date and time in ISO format, to the second.
        machine: name of the processor or accelerator.
        cores: CPU cores that the process may use.
        devices: number of JAX devices.
        python: version of Python; `jax` and `jaxlib` are versions, too.
        convolutions: the library that computes convolutions.
        model: call string of the network.
        batch: images per step, on all devices together.
        input: image shape, '224x224x3' for height x width x channels.
        dtype: type of the computation.
        what: 'train', 'forward', 'memory', 'input', 'loop', 'start_cold' or 'start_warm'.
        seconds: median time of a step or, for a start, until the first step has run; `seconds_q1` and `seconds_q3` are
            the quartiles.
        repeats: number of timed blocks, or of starts.
        roofline: `flops_per_second` as a fraction of the roofline.
        memory_bytes: the most that a step holds on one device.
        peer: library and version of the network that ours is compared with.
        ratio: our time / the peer's, median over `pairs` pairs of blocks; `ratio_q1` and `ratio_q3` are the quartiles.
    """

    date: str
    machine: str
    cores: int
    devices: int
    python: str
    jax: str
    jaxlib: str
    convolutions: str
    model: str
    batch: int
    input: str
    dtype: str
    what: str
    seconds: float | None = None
    seconds_q1: float | None = None
    seconds_q3: float | None = None
    repeats: int | None = None
    steps_per_second: float | None = None
    images_per_second: float | None = None
    flops_per_second: float | None = None
    roofline: float | None = None
    compile_seconds: float | None = None
    memory_bytes: int | None = None
    peer: str | None = None
    ratio: float | None = None
    ratio_q1: float | None = None
    ratio_q3: float | None = None
    pairs: int | None = None


def new_row(config: Config, shape: tuple[int, ...], what: str) -> Row:
    """Returns a row for the config's network on images of `shape` [H, W, C], without measurements.

    `what` is as in `Row`.
    """
    size = "x".join(map(str, shape))
    return Row(**machine_info(), model=config.model, batch=config.batch_size, input=size, dtype=config.dtype, what=what)


def add_times(row: Row, seconds: Sequence[float]) -> None:
    """Sets the median and the quartiles from measured times, each the seconds of a step or of a start.

    For steps, also sets the steps and images per second.
    """
    row.seconds_q1, row.seconds, row.seconds_q3 = quartiles(seconds)
    row.repeats = len(seconds)
    if not row.what.startswith("start"):
        row.steps_per_second, row.images_per_second = 1 / row.seconds, row.batch / row.seconds


def add_ratios(row: Row, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Sets the median and the quartiles of our seconds / the peer's, for blocks timed in pairs."""
    row.ratio_q1, row.ratio, row.ratio_q3 = quartiles([our / their for our, their in zip(ours, theirs, strict=True)])
    row.pairs = len(ours)


def machine_info() -> dict[str, Any]:
    """Returns the date, the machine and the versions, as the fields of `Row` from 'date' to 'convolutions'."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "machine": processor_name() if device.platform == "cpu" else device.device_kind,
        "cores": cores(),
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "convolutions": implementation_name(),
    }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the first quartile, the median and the third quartile. A single value is returned three times."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, median, q3
