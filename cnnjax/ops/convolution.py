"""The convolution of every network, as one JAX primitive; the implementation is chosen when a program is lowered.

A convolution is linear in its images x [N, H, W, C] and in its kernel w [h, w, C / groups, O]. With the gradient g of
its output [N, H', W', O] there are three bilinear products: the output from (x, w), the gradient of the images from
(g, w) and the gradient of the kernel from (x, g). The derivatives of each are the other two, so derivatives of any
order, in both modes, need only three lowerings. On a CPU oneDNN computes them (see `cnnjax.ops.onednn`), or plain NHWC
convolutions of XLA; elsewhere XLA's own.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from cnnjax.ops import onednn
from cnnjax.ops.partitioning import Axes, on_each_device
from cnnjax.ops.primitive import device_count, primitive, uses_onednn

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pairs = tuple[tuple[int, int], ...]

convolution_p = primitive("convolution")


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[Sequence[int]],
    dilation: Sequence[int] = (1, 1), groups: int = 1,
) -> jax.Array:  # fmt: skip
    """Convolves images x [N, H, W, C] with a kernel [h, w, C / groups, O]: -> [N, H', W', O], in the dtype of x.

    `strides` and the kernel's `dilation` are (rows, columns). `padding` is ((top, bottom), (left, right)) in pixels,
    filled with zeros. The precision of the products is that of `jax.default_matmul_precision`: with 'bfloat16', float32
    operands may be rounded to bfloat16 (relative error at most 2^-9 each); on a CPU all others are exact. Sums are
    float32. Raises TypeError or ValueError, as jax.lax.conv_general_dilated, for shapes that do not fit.
    """
    config: Any = jax.config
    options: dict[str, Any] = {
        "strides": tuple(strides),
        "padding": tuple((int(low), int(high)) for low, high in padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "precision": config.jax_default_matmul_precision,
    }
    shape = jax.eval_shape(functools.partial(_xla, **options), x, kernel).shape  # raises if they do not fit
    return convolution_p.bind(x, kernel, role="output", shape=shape, **options)


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies x [..., C] by a kernel [C, O]: -> [..., O].

    Rows [N, C] times a kernel are a convolution of images of one pixel. In bfloat16 on a CPU with instructions for it,
    that is 2 to 5 times faster than XLA's product, which converts the kernel to float32 for each use.
    """
    is_half, on_cpu = x.dtype == jnp.bfloat16, jax.default_backend() == "cpu"
    if x.ndim == 2 and is_half and on_cpu and onednn.compute_dtype(x.dtype) == x.dtype:
        return convolution(x[:, None, None], kernel[None, None], (1, 1), ((0, 0), (0, 0)))[:, 0, 0]
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def matmul_precision(name: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which functions are traced with this `jax.default_matmul_precision`; '' changes nothing."""
    return jax.default_matmul_precision(name) if name else contextlib.nullcontext()


def _xla(
    x: Any, kernel: Any, *, strides: Any, padding: Pairs, dilation: Any, groups: int, precision: str | None = None
) -> Any:
    """Convolves x with `kernel` by jax.lax.conv_general_dilated; `dilation` is that of the kernel."""
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS, feature_group_count=groups,
        precision=precision,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- derivatives

# The role that is the transpose with respect to the first and to the second operand of each role.
TRANSPOSED = {
    "output": ("images", "kernel"),  # operands (x, w)
    "images": ("output", "kernel"),  # operands (g, w)
    "kernel": ("images", "output"),  # operands (x, g)
}


def _transpose_first(cotangent: Any, a: Any, b: Any, *, role: str, shape: Any, **options: Any) -> Any:
    """Returns the cotangent of the first operand `a` of the product `role` (see `_by_xla`).

    This is another of the three products: of `cotangent`, that of the output, and `b`.
    """
    operands = (b, cotangent) if role == "kernel" else (cotangent, b)
    return convolution_p.bind(*operands, role=TRANSPOSED[role][0], shape=a.aval.shape, **options)


def _transpose_second(cotangent: Any, a: Any, b: Any, *, role: str, shape: Any, **options: Any) -> Any:
    """Returns the cotangent of the second operand `b` of the product `role` (see `_by_xla`).

    This is another of the three products: of `cotangent`, that of the output, and `a`.
    """
    operands = (cotangent, a) if role == "images" else (a, cotangent)
    return convolution_p.bind(*operands, role=TRANSPOSED[role][1], shape=b.aval.shape, **options)


ad.defbilinear(convolution_p, _transpose_first, _transpose_second)


def _batched(operands: Any, axes: Any, *, role: str, shape: Any, groups: int, **options: Any) -> Any:
    """Implements vmap for `operands` mapped over `axes` (None: not mapped); returns the result and its mapped axis.

    If only the first operand is mapped, and `role` is not 'kernel', the mapped axis joins the batch. Otherwise the
    mapped examples become groups of channels.
    """
    count = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    if role != "kernel" and axes[1] is None:
        a = jnp.moveaxis(operands[0], axes[0], 0)
        a = a.reshape(-1, *a.shape[2:])
        shapes = {"shape": (count * shape[0], *shape[1:]), "groups": groups}
        return convolution_p.bind(a, operands[1], role=role, **shapes, **options).reshape(count, *shape), 0
    joined = []
    for x, axis in zip(operands, axes, strict=True):  # [..., B, C] -> [..., B C]: the groups of an example are adjacent
        if axis is None:
            x, axis = jnp.broadcast_to(x[None], (count, *x.shape)), 0
        x = jnp.moveaxis(x, axis, -2)
        joined.append(x.reshape(*x.shape[:-2], -1))
    shapes = {"shape": (*shape[:-1], count * shape[-1]), "groups": count * groups}
    out = convolution_p.bind(*joined, role=role, **shapes, **options)
    return out.reshape(*shape[:-1], count, shape[-1]), len(shape) - 1


batching.primitive_batchers[convolution_p] = _batched


# ------------------------------------------------------------------------------------------------------------ lowering


def _by_xla(a: Any, b: Any, *, role: str, shape: Any, **options: Any) -> Any:
    """Computes the product `role` of a convolution with XLA's own convolution and JAX's transposes of it.

    'output' is the output, from images a and kernel b. 'images' is the gradient of the images, from the output's
    gradient a and kernel b. 'kernel' is the gradient of the kernel, from images a and the output's gradient b. `shape`
    is that of the result.
    """
    if role == "output":
        return _xla(a, b, **options)
    other = jax.ShapeDtypeStruct(shape, a.dtype)
    if role == "images":
        return jax.linear_transpose(lambda x: _xla(x, b, **options), other)(a)[0]
    return jax.linear_transpose(lambda w: _xla(a, w, **options), other)(b)[0]


def _by_plain_xla(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int,
    precision: str | None = None,
) -> Any:  # fmt: skip
    """Computes the product `role` (see `_by_xla`) with XLA convolutions of images NHWC and kernels HWIO only.

    For gradients, the operands are transposed to these layouts: others are several times slower on a CPU in the body of
    a loop. The gradient of a grouped kernel is left to `_by_xla`.
    """
    if role == "output" or (role == "kernel" and groups > 1):
        options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
        return _by_xla(a, b, role=role, shape=shape, precision=precision, **options)
    plain = functools.partial(lax.conv_general_dilated, dimension_numbers=DIMENSIONS, precision=precision)
    if role == "images":  # the gradient, dilated by the strides, is convolved with the flipped kernel
        dilations = [(0, 0, stride - 1) for stride in strides]
        g = lax.pad(a, np.zeros((), a.dtype), [(0, 0, 0), *dilations, (0, 0, 0)])
        flipped = b[::-1, ::-1].reshape(*b.shape[:3], groups, -1).swapaxes(2, 4).reshape(*b.shape[:2], -1, shape[3])
        pads = []
        for size, k, gap, g_size, (low, _) in zip(
            shape[1:3], b.shape[:2], dilation, g.shape[1:3], padding, strict=True
        ):
            reach = (k - 1) * gap
            pads.append((reach - low, size + low - g_size))
        return plain(g, flipped, (1, 1), pads, rhs_dilation=dilation, feature_group_count=groups)
    pads = []  # the images' channels act as the batch, and the gradient as the kernel
    for k, size, out, stride, (low, _), gap in zip(
        shape[:2], a.shape[1:3], b.shape[1:3], strides, padding, dilation, strict=True
    ):
        pads.append((low, (k - 1) * gap + (out - 1) * stride + 1 - size - low))
    kernel = plain(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3), dilation, pads, rhs_dilation=strides)
    return kernel.transpose(1, 2, 0, 3)


def _by_pixels(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int,
    precision: str | None = None,
) -> Any:  # fmt: skip
    """Computes the gradient of a grouped kernel as one matrix product per kernel position, for several devices.

    XLA partitions JAX's own transpose wrongly: devices along a mesh axis that hold the same rows are each counted
    (jaxlib 0.10.2). It would also gather all images on every device.
    """
    del role
    x = lax.pad(a, np.zeros((), a.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    x, g = (array.reshape(*array.shape[:3], groups, -1) for array in (x, b))
    spans = [(out - 1) * stride + 1 for out, stride in zip(b.shape[1:3], strides, strict=True)]
    products = []
    for i, j in np.ndindex(*shape[:2]):
        top, left = i * dilation[0], j * dilation[1]
        inputs = x[:, top : top + spans[0] : strides[0], left : left + spans[1] : strides[1]]
        products.append(jnp.einsum("nyxgc,nyxgo->cgo", inputs, g, precision=precision))
    return jnp.stack(products).reshape(shape)


def _by_onednn(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int,
    precision: str | None = None, devices: int = 1, dtype: Any = None,
) -> Any:  # fmt: skip
    """Computes the product `role` (see `_by_xla`) with oneDNN; the result has the dtype of `a`.

    `dtype` is that of the computation, None for `onednn.compute_dtype`; sums are float32. `devices` is the number of
    devices of this process that compute at the same time, and so divide its cores.
    """
    dtype = dtype or onednn.compute_dtype(a.dtype)
    *_, inputs, outputs = shape if role == "kernel" else b.shape
    merged = _merged_groups(groups, inputs, outputs // groups, dtype)
    if role == "kernel":
        result = jax.ShapeDtypeStruct((*shape[:2], merged * inputs, outputs), dtype)
    else:
        result, b = jax.ShapeDtypeStruct(shape, dtype), _merge_groups(b, groups, merged)
    out = jax.ffi.ffi_call(onednn.CONVOLVE, result)(
        a.astype(dtype),
        b.astype(dtype),
        role=np.int64(onednn.ROLES.index(role)),
        strides=np.array(strides, np.int64),
        padding=np.array(padding, np.int64).ravel(),
        dilation=np.array(dilation, np.int64),
        groups=np.int64(groups // merged),
        fast=precision == "bfloat16",
        devices=np.int64(devices),
    )
    return (_split_groups(out, groups, merged) if role == "kernel" else out).astype(a.dtype)


def _merged_groups(groups: int, inputs: int, outputs: int, dtype: Any) -> int:
    """Returns how many groups, of `inputs` to `outputs` channels each, oneDNN computes as one: 1 or 2.

    Its float32 vectors hold 8 channels, and for ResNeXt's groups of 4 it has slow code only (3.2, AVX2). Two groups
    merged take half the time, though half the products are by 0.
    """
    return 2 if (inputs, outputs) == (4, 4) and groups % 2 == 0 and dtype == np.float32 else 1


def _merge_groups(kernel: Any, groups: int, merged: int) -> Any:
    """Returns the block-diagonal kernel [h, w, merged * inputs, O] of a grouped `kernel` [h, w, inputs, O]."""
    if merged == 1:
        return kernel
    blocks = kernel.reshape(*kernel.shape[:3], groups // merged, merged, -1)
    others = [(0, 0, 0)] * 4  # zeros in place of the other groups; no array of them, which partitioning refuses
    rows = [
        lax.pad(blocks[..., i : i + 1, :], np.zeros((), kernel.dtype), [*others, (i, merged - 1 - i, 0), (0, 0, 0)])
        for i in range(merged)
    ]
    return jnp.concatenate(rows, axis=2).reshape(*kernel.shape[:2], -1, kernel.shape[3])


def _split_groups(kernel: Any, groups: int, merged: int) -> Any:
    """Returns the blocks [h, w, inputs, O] of the diagonal of a kernel [h, w, merged * inputs, O]."""
    if merged == 1:
        return kernel
    blocks = kernel.reshape(*kernel.shape[:2], merged, kernel.shape[2] // merged, groups // merged, merged, -1)
    diagonal = jnp.stack([blocks[:, :, i, :, :, i] for i in range(merged)], axis=-2)
    return diagonal.reshape(*kernel.shape[:2], -1, kernel.shape[3])


# The axes of the images x, the kernel w and the output's gradient g: a convolution without groups is linear in each,
# and any of its batch n, input channels c and output channels o can be divided. With groups, only the batch.
AXES = {"x": "nhwc", "w": "ijco", "g": "npqo"}
AXES_OF_GROUPS = {"x": "nhwc", "w": "ijde", "g": "npqo"}
OPERANDS = {"output": "xw", "images": "gw", "kernel": "xg"}
RESULTS = {"output": "g", "images": "x", "kernel": "w"}


def _axes(role: str, groups: int) -> Axes:
    """Returns the axes of the product `role`, and those along which it may be divided among devices."""
    letters = AXES if groups == 1 else AXES_OF_GROUPS
    operands = tuple(letters[operand] for operand in OPERANDS[role])
    return Axes(operands, letters[RESULTS[role]], divisible="nco" if groups == 1 else "n")


def _lower(context: Any, a: Any, b: Any, *, cpu: bool, role: str, **params: Any) -> Any:
    """Lowers the primitive to MLIR by the implementation that fits the role, the platform and the number of devices."""
    if cpu and uses_onednn(context):
        implementation = on_each_device(context, _by_onednn, _axes(role, params["groups"]))
    elif role == "kernel" and params["groups"] > 1 and device_count(context) > 1:
        implementation = _by_pixels
    else:
        implementation = _by_plain_xla if cpu else _by_xla

    def compute(a: Any, b: Any) -> Any:
        with jax.named_scope(role):  # for profiles
            return implementation(a, b, role=role, **params)

    return mlir.lower_fun(compute, multiple_results=False)(context, a, b)


mlir.register_lowering(convolution_p, functools.partial(_lower, cpu=False))
mlir.register_lowering(convolution_p, functools.partial(_lower, cpu=True), platform="cpu")


def implementation_name(dtype: str = "float32") -> str:
    """Describes what computes convolutions on arrays of `dtype`: 'oneDNN 3.2.0', 'XLA', or 'XLA (reason)'."""
    if jax.default_backend() != "cpu":
        return "XLA"
    status = onednn.load()
    converts = dtype == "bfloat16" and status.ok and onednn.compute_dtype(dtype) == jnp.float32
    return status.text + " in float32 (this processor has no instructions for bfloat16)" * converts
