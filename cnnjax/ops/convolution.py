"""The convolution under every network, as one JAX primitive: what computes it is chosen when a program is lowered.

A convolution is linear in its images x [N, H, W, C] and in its kernel w [h, w, C / groups, O]. With the gradient g of
its output [N, H', W', O] there are three products of two of these, and each one's derivatives are the other two: so
derivatives of any order, in both modes, need no more than three lowerings. On a CPU these are oneDNN's (see
`cnnjax.ops.onednn`), or plain convolutions of XLA; elsewhere XLA's own.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from cnnjax.ops import onednn
from cnnjax.ops.primitive import by_native, devices_of, primitive

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pairs = tuple[tuple[int, int], ...]

convolution_p = primitive("convolution")


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[Sequence[int]],
    dilation: Sequence[int] = (1, 1), groups: int = 1,
) -> jax.Array:  # fmt: skip
    """The convolution of images NHWC with a kernel HWIO; `padding` is ((above, below), (left, right)) in pixels."""
    options: dict[str, Any] = {
        "strides": tuple(strides),
        "padding": tuple((int(low), int(high)) for low, high in padding),
        "dilation": tuple(dilation),
        "groups": groups,
    }
    shape = jax.eval_shape(functools.partial(_xla, **options), x, kernel).shape  # also checks them
    return convolution_p.bind(x, kernel, role="output", shape=shape, **options)


def _xla(x: Any, kernel: Any, *, strides: Any, padding: Pairs, dilation: Any, groups: int) -> Any:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )


# --------------------------------------------------------------------------------------------------------- derivatives

# Of the two operands of each role, which role gives the gradient by them, and from which operands.
TRANSPOSED = {
    "output": ("images", "kernel"),  # (x, w)
    "images": ("output", "kernel"),  # (g, w)
    "kernel": ("images", "output"),  # (x, g)
}


def _transpose_first(cotangent: Any, a: Any, b: Any, *, role: str, shape: Any, **options: Any) -> Any:
    operands = (b, cotangent) if role == "kernel" else (cotangent, b)
    return convolution_p.bind(*operands, role=TRANSPOSED[role][0], shape=a.aval.shape, **options)


def _transpose_second(cotangent: Any, a: Any, b: Any, *, role: str, shape: Any, **options: Any) -> Any:
    operands = (cotangent, a) if role == "images" else (a, cotangent)
    return convolution_p.bind(*operands, role=TRANSPOSED[role][1], shape=b.aval.shape, **options)


ad.defbilinear(convolution_p, _transpose_first, _transpose_second)


def _batched(operands: Any, axes: Any, *, role: str, shape: Any, groups: int, **options: Any) -> Any:
    """vmap: more images for one kernel; for several kernels, several groups of maps."""
    count = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    if role != "kernel" and axes[1] is None:
        a = jnp.moveaxis(operands[0], axes[0], 0)
        a = a.reshape(-1, *a.shape[2:])
        shapes = {"shape": (count * shape[0], *shape[1:]), "groups": groups}
        return convolution_p.bind(a, operands[1], role=role, **shapes, **options).reshape(count, *shape), 0
    joined = []
    for x, axis in zip(operands, axes, strict=True):  # [..., B, C] -> [..., B C]: the groups of each are neighbours
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
    """As JAX itself writes it."""
    if role == "output":
        return _xla(a, b, **options)
    other = jax.ShapeDtypeStruct(shape, a.dtype)
    if role == "images":
        return jax.linear_transpose(lambda x: _xla(x, b, **options), other)(a)[0]
    return jax.linear_transpose(lambda w: _xla(a, w, **options), other)(b)[0]


def _by_plain_xla(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int
) -> Any:
    """With the gradients as convolutions NHWC and HWIO too, of maps and kernels that are moved into place before.

    In the body of a loop XLA leaves any other form to code that is several times slower on a CPU.
    """
    if role == "output" or (role == "kernel" and groups > 1):
        return _by_xla(a, b, role=role, shape=shape, strides=strides, padding=padding, dilation=dilation, groups=groups)
    plain = functools.partial(lax.conv_general_dilated, dimension_numbers=DIMENSIONS)
    if role == "images":  # the kernel turned around slides over the gradient, with zeros where strides left pixels out
        spread = [(0, 0, stride - 1) for stride in strides]
        g = lax.pad(a, np.zeros((), a.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
        turned = b[::-1, ::-1].reshape(*b.shape[:3], groups, -1).swapaxes(2, 4).reshape(*b.shape[:2], -1, shape[3])
        pads = []
        for size, k, gap, have, (low, _) in zip(shape[1:3], b.shape[:2], dilation, g.shape[1:3], padding, strict=True):
            reach = (k - 1) * gap
            pads.append((reach - low, size + low - have))
        return plain(g, turned, (1, 1), pads, rhs_dilation=dilation, feature_group_count=groups)
    pads = []  # the images' maps stand for examples, and the gradient for a kernel
    for k, size, out, stride, (low, _), gap in zip(
        shape[:2], a.shape[1:3], b.shape[1:3], strides, padding, dilation, strict=True
    ):
        pads.append((low, (k - 1) * gap + (out - 1) * stride + 1 - size - low))
    maps = plain(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3), dilation, pads, rhs_dilation=strides)
    return maps.transpose(1, 2, 0, 3)


def _by_pixels(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int
) -> Any:
    """The gradient by a kernel in groups, as a product of matrices for each pixel of the kernel: for several devices.

    What JAX itself writes for it XLA divides wrongly: where the devices along one axis of the mesh have the same rows,
    it counts them each (jaxlib 0.10.2); and it gathers all maps on every device.
    """
    del role
    x = lax.pad(a, np.zeros((), a.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    x, g = (maps.reshape(*maps.shape[:3], groups, -1) for maps in (x, b))
    spans = [(out - 1) * stride + 1 for out, stride in zip(b.shape[1:3], strides, strict=True)]
    products = []
    for i, j in np.ndindex(*shape[:2]):
        top, left = i * dilation[0], j * dilation[1]
        seen = x[:, top : top + spans[0] : strides[0], left : left + spans[1] : strides[1]]
        products.append(jnp.einsum("nyxgc,nyxgo->cgo", seen, g))
    return jnp.stack(products).reshape(shape)


def _by_onednn(
    a: Any, b: Any, *, role: str, shape: Any, strides: Any, padding: Pairs, dilation: Any, groups: int
) -> Any:
    """In float32, whatever the dtype."""
    call = jax.ffi.ffi_call(onednn.TARGET, jax.ShapeDtypeStruct(shape, jnp.float32))
    out = call(
        a.astype(jnp.float32),
        b.astype(jnp.float32),
        role=np.int64(onednn.ROLES.index(role)),
        strides=np.array(strides, np.int64),
        padding=np.array(padding, np.int64).ravel(),
        dilation=np.array(dilation, np.int64),
        groups=np.int64(groups),
    )
    return out.astype(a.dtype)


def _lower(context: Any, a: Any, b: Any, *, cpu: bool, role: str, **params: Any) -> Any:
    if role == "kernel" and params["groups"] > 1 and devices_of(context) > 1:
        by = _by_pixels
    elif cpu:
        by = _by_onednn if by_native(context) else _by_plain_xla
    else:
        by = _by_xla

    def compute(a: Any, b: Any) -> Any:
        with jax.named_scope(role):  # for profiles
            return by(a, b, role=role, **params)

    return mlir.lower_fun(compute, multiple_results=False)(context, a, b)


mlir.register_lowering(convolution_p, functools.partial(_lower, cpu=False))
mlir.register_lowering(convolution_p, functools.partial(_lower, cpu=True), platform="cpu")


def lowered_by(devices: int) -> str:
    """What computes the convolutions of a program on so many devices, to be shown: 'oneDNN 3.2.0', or 'XLA' and why."""
    if jax.default_backend() != "cpu":
        return "XLA"
    return onednn.load().text if devices == 1 else "XLA, on several devices"
