"""A network as a table of its layers, and two or more networks side by side."""

import dataclasses
import math
import shutil
import string
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn

from cnnjax import spec, tables
from cnnjax.errors import InputError
from cnnjax.models import MODELS, create_model
from cnnjax.summarize.trace import Layer, layers

__all__ = ["COLUMNS", "Layer", "Summary", "cells", "compare", "layers", "summary", "unseen"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
COLUMNS = (
    "layer", "kind", "output", "kernel", "stride", "padding", "parameters", "biases", "MACs", "bytes",
    "receptive field", "jump",
)  # fmt: skip
NAMES = frozenset(("layer", "kind", ""))  # the columns of text
LEGEND = "receptive field: input pixels seen by one output unit; jump: input pixels between neighboring units"
MAX_NOTES = 4  # layers of which a summary says which pixels they do not see


def cells(layer: Layer, scale: int) -> list[str]:
    """Formats a row in the order of COLUMNS, (3, 3) as '3', without units; `scale` is that of the Summary."""

    def size(pair: Sequence[Any] | None, separator: str = "x") -> str:
        if pair is None:
            return ""
        low, high = (size(value, "+") if isinstance(value, tuple) else str(value) for value in pair)
        return low if low == high else f"{low}{separator}{high}"

    shapes = "x".join(map(str, layer.output)), size(layer.kernel), size(layer.stride), size(layer.padding)
    numbers = map(str, (layer.params, layer.biases, layer.macs, layer.activations * scale))
    return [layer.name, layer.kind, *shapes, *numbers, size(layer.receptive_field) or "all", size(layer.jump)]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network's layers and totals, for images [height, width, channels] of one size. Its repr is the table."""

    title: str
    layers: Sequence[Layer]
    input_shape: tuple[int, int, int]
    batch: int = 1
    dtype: str = "float32"

    @property
    def params(self) -> int:
        """Returns the number of trainable parameters."""
        return sum(row.params for row in self.layers)

    @property
    def biases(self) -> int:
        """Returns the number of biases among the parameters."""
        return sum(row.biases for row in self.layers)

    @property
    def macs(self) -> int:
        """Returns the number of multiply-accumulates per image."""
        return sum(row.macs for row in self.layers)

    @property
    def stats(self) -> int:
        """Returns the number of running statistics."""
        return sum(row.stats for row in self.layers)

    @property
    def activations(self) -> int:
        """Returns the number of elements of the image and of all layers' outputs."""
        return math.prod(self.input_shape) + sum(row.activations for row in self.layers)

    @property
    def scale(self) -> int:
        """Returns the bytes per activation of an image: the bytes of the dtype times the batch size."""
        return self.batch * DTYPE_BYTES[self.dtype]

    def table(self, numbers: str = "marked") -> tables.Table:
        """Builds the table of the layers.

        `numbers` are 'plain' digits, 'separated' as in 1,000, or also 'marked': * at the most parameters and bytes.
        """
        rows = [cells(row, self.scale) for row in self.layers]
        if numbers != "plain":
            for heading in ("parameters", "biases", "MACs", "bytes"):
                column = COLUMNS.index(heading)
                values = [int(row[column]) for row in rows]
                marked = numbers == "marked" and heading in ("parameters", "bytes")
                for row, number in zip(rows, values, strict=True):
                    mark = " *" * (marked and number == max(values))
                    row[column] = f"{number:,}{mark}" if number else ""
        return tables.Table(COLUMNS, rows, NAMES)

    def short_table(self) -> tables.Table:
        """Builds a table of the layers' names, output sizes and parameters."""
        rows = [
            [row.name, "x".join(map(str, row.output)), f"{row.params:,}" if row.params else ""] for row in self.layers
        ]
        return tables.Table(("layer", "output", "parameters"), rows, NAMES)

    def totals(self, legend: bool = True) -> list[str]:
        """Returns the lines below the table: its legend, parameters by kind of layer, sums, and unseen pixels."""
        lines = ["* largest value in its column", LEGEND] if legend else []
        for kind in dict.fromkeys(row.kind for row in self.layers if row.params):
            count = sum(row.params for row in self.layers if row.kind == kind)
            lines.append(f"  {kind:15} {count:>14,} parameters, {count / self.params:.1%}")
        forward = self.activations * self.scale / 2**20
        return [
            *lines,
            f"{self.params:,} parameters; {self.macs:,} MACs per image; {self.stats:,} running statistics",
            f"{self.params - self.biases:,} parameters without the {self.biases:,} biases",
            f"{self.activations:,} activations per image (incl. {math.prod(self.input_shape):,} inputs): "
            f"{forward:,.1f} MiB forward, {2 * forward:,.1f} MiB with gradients",
            *self.notes(),
        ]

    def notes(self) -> list[str]:
        """Returns a line for each layer that does not see all of its input, for at most MAX_NOTES layers."""
        lines = [f"note: {text}" for row in self.layers if (text := unseen(row))]
        count = len(lines) - MAX_NOTES
        more = [f"note: and more pixels in {count} later layer{'s' * (count > 1)}"] if count > 0 else []
        return [*lines[:MAX_NOTES], *more]

    def __repr__(self) -> str:
        width = shutil.get_terminal_size((200, 24)).columns
        return "\n".join([self.title, *tables.as_text(self.table(), width), *self.totals()])


def unseen(layer: Layer) -> str:
    """Says which pixels of its input a convolution or pool does not see, and why; '' if it sees all.

    Convolutions of 1x1 with a stride are left out: they are meant to skip pixels.
    """
    window: list[Any] = [layer.input, layer.kernel, layer.stride, layer.padding, layer.dilation]
    if not all(window) or layer.kernel == (1, 1):
        return ""
    missed, reasons = [], []
    sides = zip(("row", "column"), *window, strict=True)
    for name, size, kernel, stride, (low, high), dilation in sides:
        reach = (kernel - 1) * dilation + 1
        outputs = (size + low + high - reach) / stride + 1
        pixels = [i + 1 for i in range(size) if not _is_seen(i + low, int(outputs), kernel, stride, dilation)]
        if pixels:
            missed.append(f"{name}{'s' * (len(pixels) > 1)} {', '.join(_ranges(pixels))}")
            pads = f" + {low + high}" if low + high else ""
            rounded = "" if outputs.is_integer() else f" = {outputs:.2f}, rounded down to"
            reasons.append(
                f"({size} - {reach}{pads}) / {stride} + 1{rounded or ' ='} {int(outputs)} output{'s' * (outputs >= 2)}"
            )
    if not missed:
        return ""
    size, why = "x".join(map(str, window[0])), " and ".join(dict.fromkeys(reasons))
    return f"{layer.name} does not see {' and '.join(missed)} of its {size} input: {why}"


def _is_seen(pixel: int, outputs: int, kernel: int, stride: int, dilation: int) -> bool:
    """Returns whether one of `outputs` windows covers `pixel`, a position on the padded side."""
    first = max(0, -(-(pixel - (kernel - 1) * dilation) // stride))  # the windows that reach around it
    last = min(outputs - 1, pixel // stride)
    return any((pixel - i * stride) % dilation == 0 for i in range(first, min(last, first + dilation - 1) + 1))


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Yields ascending numbers as text, '3' or '5 to 9'; after four of these, '...'."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    for start, end in zip(starts[:4], ends[:4], strict=True):
        yield str(start) if start == end else f"{start} to {end}"
    if len(starts) > 4:
        yield "..."


def compare(summaries: Sequence[Summary]) -> tables.Table:
    """Builds a table of the totals of several networks, a column each; of two, with their ratio. At most 26."""
    rows: list[list[str]] = []

    def add(name: str, values: Sequence[float], form: str = ",") -> None:
        ratio = values[1] / values[0] if values[0] else math.nan
        ratio = "" if math.isnan(ratio) else f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"
        rows.append([name, *(f"{value:{form}}" for value in values), *([ratio] if len(values) == 2 else [])])

    add("layers with parameters", [sum(row.params > 0 for row in s.layers) for s in summaries])
    add("parameters", [s.params for s in summaries])
    add("parameters without biases", [s.params - s.biases for s in summaries])
    add("running statistics", [s.stats for s in summaries])
    add("MACs per image", [s.macs for s in summaries])
    add("activations per image", [s.activations for s in summaries])
    add("MiB forward", [s.activations * s.scale / 2**20 for s in summaries], ",.1f")
    letters = string.ascii_uppercase[: len(summaries)]
    return tables.Table(("", *letters, *(["B/A"] if len(summaries) == 2 else [])), rows, NAMES)


def summary(
    model: nn.Module | str, input_shape: tuple[int, int, int] | None = None, batch: int = 1, dtype: str = "float32",
    num_classes: int = 0,
) -> Summary:  # fmt: skip
    """Summarizes a network layer by layer: shapes, parameters, MACs, memory and receptive fields.

    `model` is a flax module, or a name or call string as in `create_model`. `input_shape` is (height, width, channels).
    With a name, None and `num_classes` 0 mean the paper's; a module needs `input_shape` and ignores `num_classes`.
    `batch` and `dtype` ('float32' or 'bfloat16') determine the bytes. Raises InputError for an unknown name, and for
    images that do not fit the network.
    """
    title = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, str):
        name, model = spec.parse(model).name, create_model(model, num_classes, dtype)
        input_shape = input_shape or MODELS[name].input_shape
    if input_shape is None:
        raise InputError("input_shape = None: expected (height, width, channels); a module has no image size")
    if batch < 1 or dtype not in DTYPE_BYTES:
        raise InputError(f"batch = {batch!r}, dtype = {dtype!r}: expected at least 1, one of {', '.join(DTYPE_BYTES)}")
    title += f", {f'{batch} x ' * (batch > 1)}{'x'.join(map(str, input_shape))}, {dtype}"
    return Summary(title, layers(model, input_shape), input_shape, batch, dtype)
