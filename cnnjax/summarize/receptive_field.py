"""The receptive field of an array: which pixels of the image its units see, operation by operation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

Pair = tuple[int, int]  # (rows, columns)


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the image that the units of a layer see. Pairs are (rows, columns).

    Unit (i, j) sees a window of `size` pixels whose first pixel is `start` + (i, j) * `jump`. Near the border it leaves
    the image, as `start` is negative with padding. Where branches meet, it is the smallest window that holds theirs.
    With `is_global`, units depend on all pixels, through a mean over all positions (squeeze-and-excitation, group
    normalization) or a fully connected layer. The window is the one without the means; it is the whole image if there
    is nothing else.
    Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks. Distill 2019.
    """

    size: Pair
    jump: Pair
    start: Pair = (0, 0)
    is_global: bool = False

    def window(self, position: Sequence[int], within: Sequence[int] | None = None) -> tuple[Pair, Pair]:
        """Returns the window ((top, bottom), (left, right)) of the unit at `position` (row, column).

        Bottom and right are excluded. `within` (height, width) of the image clips the window at its border. A unit
        beside the border may see less: where a layer between pads or crops, it sees zeros in place of pixels.
        """
        first = [start + i * jump for start, i, jump in zip(self.start, position, self.jump, strict=True)]
        rows, columns = ((low, low + size) for low, size in zip(first, self.size, strict=True))
        if within is None:
            return rows, columns
        (height, width), (top, bottom), (left, right) = within, rows, columns
        return (max(top, 0), min(bottom, height)), (max(left, 0), min(right, width))


NOTHING, ALL = "nothing", "all"  # in place of a field: units that do not depend on the image, or on all of it


def output_field(eqn: Any, inputs: Sequence[Any]) -> ReceptiveField | str:
    """Computes the field of an equation's result from the fields of its inputs."""
    windows = [field for field in inputs if isinstance(field, ReceptiveField)]
    name, reduced = eqn.primitive.name, eqn.params.get("axes") or ()  # of a sum or a maximum
    is_flattened = eqn.invars[0].aval.ndim >= 4 > eqn.outvars[0].aval.ndim and name != "squeeze" and not reduced
    if not windows or is_flattened or {1, 2} & set(reduced):
        return ALL
    if name == "concatenate" and eqn.params["dimension"] in (1, 2):  # copies of the border pixels beside the image
        return _shifted(eqn, inputs)
    is_global = ALL in inputs or any(field.is_global for field in windows)
    sides = []
    for side, (reach, stride, before) in enumerate(_geometry(eqn)):
        start = min(field.start[side] for field in windows)
        size = max(field.start[side] + field.size[side] for field in windows) - start
        jump = max(field.jump[side] for field in windows)
        sides.append((size + (reach - 1) * jump, jump * stride, start - before * jump))
    size, jump, start = zip(*sides, strict=True)
    return ReceptiveField(size, jump, start, is_global)


def _shifted(eqn: Any, inputs: Sequence[Any]) -> Any:
    """Returns the field of arrays concatenated along rows or columns: that of the largest, at its new position.

    So a copied border pixel counts as the pixel that would be there. Arrays without a window of their own do not count.
    """
    axis = eqn.params["dimension"]
    sizes = [atom.aval.shape[axis] for atom in eqn.invars]
    largest = max((i for i, field in enumerate(inputs) if isinstance(field, ReceptiveField)), key=sizes.__getitem__)
    field, start = inputs[largest], list(inputs[largest].start)
    start[axis - 1] -= sum(sizes[:largest]) * field.jump[axis - 1]
    return dataclasses.replace(field, start=tuple(start))


def _geometry(eqn: Any) -> list[tuple[int, int, int]]:
    """Returns (extent, stride, padding before) of an operation's windows along rows and columns."""
    p, name = eqn.params, eqn.primitive.name
    if geometry := window(eqn):
        sides = zip(*geometry, strict=True)
        return [((kernel - 1) * dilation + 1, stride, low) for kernel, stride, (low, _), dilation in sides]
    if eqn.invars[0].aval.ndim == 4 and name == "slice":
        strides = p["strides"] or (1,) * 4
        return [(1, strides[axis], -p["start_indices"][axis]) for axis in (1, 2)]
    if eqn.invars[0].aval.ndim == 4 and name == "pad":
        return [(1, 1, int(p["padding_config"][axis][0])) for axis in (1, 2)]
    return [(1, 1, 0)] * 2


def window(eqn: Any) -> tuple[Pair, Pair, tuple[Pair, Pair], Pair] | None:
    """Returns (kernel, stride, padding, dilation) of a convolution or pool; None for other equations.

    A window over channels, as in response normalization, is no pool.
    """
    p = eqn.params
    if eqn.primitive.name == "convolution":
        return eqn.invars[1].aval.shape[:2], p["strides"], p["padding"], p["dilation"]
    if eqn.primitive.name == "conv_general_dilated":  # flax's own, in a network from outside
        axes = p["dimension_numbers"].rhs_spec[2:]
        kernel = tuple(eqn.invars[1].aval.shape[axis] for axis in axes)
        return kernel, p["window_strides"], p["padding"], p["rhs_dilation"]
    if eqn.primitive.name in ("max_pool", "sum_pool"):
        return (p["window"],) * 2, (p["stride"],) * 2, p["padding"], (1, 1)
    if eqn.primitive.name.startswith("reduce_window"):
        names = ("window_dimensions", "window_strides", "padding", "window_dilation")
        images, *sides, channels = zip(*(p[name] for name in names), strict=True)
        if len(sides) == 2 and images[0] == channels[0] == 1:
            kernel, stride, padding, dilation = zip(*sides, strict=True)
            return kernel, stride, padding, dilation
    return None
