"""Batch normalization with an optional ReLU, as JAX primitives; the implementation is chosen when a program is lowered.

On a CPU, the C++ library of `cnnjax.ops.onednn` computes the normalization and its gradient, fused with the ReLU: in
float32, and in bfloat16 if the processor has instructions for it. Elsewhere XLA computes the formulas below, which also
define all higher-order derivatives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cnnjax.ops import onednn
from cnnjax.ops.partitioning import Axes, on_each_device
from cnnjax.ops.primitive import device_count, needs_mesh, uses_onednn


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, relu: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes x [..., C] by the mean and the variance of each channel (Ioffe, Szegedy 2015, Algorithm 1).

    Returns (y, mean, var). y = scale * (x - mean) / sqrt(var + epsilon) + bias has the shape and dtype of x; with
    `relu`, it is max(y, 0). The mean and the biased variance are [C], in the dtype of `scale` [C] and `bias` [C].
    """
    y, mean, var, _ = batch_norm_p.bind(x, scale, bias, epsilon=float(epsilon), relu=relu)
    return y, mean, var


# ------------------------------------------------------------------------------------------------------------ formulas


def _normalize(x: Any, scale: Any, bias: Any, *, epsilon: float, relu: bool) -> Any:
    """Computes y, mean and var of `batch_norm` with XLA. The fourth result, oneDNN's workspace, is 0 and not used."""
    wide, axes = x.astype(scale.dtype), tuple(range(x.ndim - 1))
    mean = jnp.mean(wide, axes)
    var = jnp.maximum(0.0, jnp.mean(jnp.square(wide), axes) - jnp.square(mean))
    factor = scale * lax.rsqrt(var + epsilon)
    y = (wide - lax.expand_dims(mean, axes)) * lax.expand_dims(factor, axes) + lax.expand_dims(bias, axes)
    return (jnp.maximum(y, 0) if relu else y).astype(x.dtype), mean, var, jnp.zeros(_workspace_size(x), jnp.uint8)


def _workspace_size(x: Any) -> int:
    """Returns the size in bytes of the mask in which oneDNN records where the ReLU is active.

    Returns 0 where our own code is used instead: if the channels do not fill its vectors, oneDNN computes them one by
    one, 5 to 20 times slower than XLA.
    """
    return x.size if x.shape[-1] % (8 if x.dtype == np.float32 else 16) == 0 else 0


def _tangent(
    dx: Any, dscale: Any, dbias: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, workspace: Any, *,
    epsilon: float, relu: bool,
) -> Any:  # fmt: skip
    """Returns [dy], the tangent of y, which is linear in (dx, dscale, dbias) (Ioffe, Szegedy 2015, sec. 3).

    The transpose takes two sums and one pass over x. `mean` and `var` are those of x.
    """
    del workspace
    wide, axes = dx.astype(scale.dtype), tuple(range(x.ndim - 1))
    dscale, dbias, scale, bias, mean, var = (
        lax.expand_dims(value, axes) for value in (dscale, dbias, scale, bias, mean, var)
    )
    inverse = lax.rsqrt(var + epsilon)
    standard, factor = (x.astype(scale.dtype) - mean) * inverse, scale * inverse
    shift = dbias - factor * jnp.mean(wide, axes, keepdims=True)
    slope = dscale - factor * jnp.mean(standard * wide, axes, keepdims=True)
    dy = factor * wide + standard * slope + shift
    if relu:
        dy = jnp.where(standard * scale + bias > 0, dy, 0)
    return [dy.astype(x.dtype)]


def _gradient(g: Any, *residuals: Any, **options: Any) -> Any:
    """Returns the gradients with respect to (x, scale, bias), given `g`, that of y: the transpose of `_tangent`.

    `residuals` are the operands of `_tangent` from x on.
    """
    x, scale, bias = residuals[:3]
    tangent = functools.partial(_tangent, **options)
    return jax.linear_transpose(lambda *tangents: tangent(*tangents, *residuals), x, scale, bias)([g])


def _shapes(x: Any, scale: Any, *rest: Any, **options: Any) -> list[Any]:
    """Returns the shapes and dtypes of the results of `_normalize`, as abstract arrays."""
    stats = scale.update(weak_type=False)
    return [x.update(weak_type=False), stats, stats, x.update(shape=(_workspace_size(x),), dtype=np.dtype(np.uint8))]


# ---------------------------------------------------------------------------------------------------------- primitives


def _primitive(
    name: str, formula: Callable[..., Any], shapes: Callable[..., Any], by_library: Any = None, by_shards: Any = None
) -> Primitive:
    """Creates a primitive that XLA computes by `formula`; `shapes` is its abstract evaluation.

    Where oneDNN can be used, `by_library` computes it on one device. On several, `by_shards(context)` returns the
    function that does; `context` is the LoweringRuleContext.
    """
    result = Primitive(name)
    result.multiple_results = True
    if by_shards is not None:
        needs_mesh(result)
    result.def_impl(lambda *operands, **params: _compiled(result, **params)(*operands))
    result.def_abstract_eval(shapes)

    def lower(context: Any, *operands: Any, **params: Any) -> Any:
        """Lowers the primitive for a CPU."""
        x = context.avals_in[0]
        fits = by_library is not None and x.size > 0
        fits = fits and uses_onednn(context) and onednn.compute_dtype(x.dtype) == x.dtype
        by_channel = [value for value in context.avals_in if value.ndim == 1 and value.dtype != np.uint8]
        fits = fits and all(value.dtype == np.float32 for value in by_channel)
        by: Any = by_library if fits else formula
        if fits and by_shards is not None and device_count(context) > 1:
            by = by_shards(context)
        return mlir.lower_fun(by, multiple_results=True)(context, *operands, **params)

    def batched(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> Any:
        """Implements vmap by the formula."""
        out = jax.vmap(functools.partial(formula, **params), axes)(*operands)
        return out, [0] * len(out)

    mlir.register_lowering(result, mlir.lower_fun(formula, multiple_results=True))
    mlir.register_lowering(result, lower, platform="cpu")
    batching.primitive_batchers[result] = batched
    return result


@functools.cache
def _compiled(primitive: Primitive, **params: Any) -> Any:
    """Returns the jitted function that binds a primitive: for calls outside jit."""
    return jax.jit(functools.partial(primitive.bind, **params))


def _as_images(x: Any) -> Any:
    """Reshapes x [..., C] to [N, H, W, C], which oneDNN expects."""
    return x.reshape(-1, 1, 1, x.shape[-1]) if x.ndim < 4 else x.reshape(-1, *x.shape[-3:])


def _normalize_by_library(x: Any, scale: Any, bias: Any, *, epsilon: float, relu: bool) -> Any:
    """Computes `_normalize` with the library of `cnnjax.ops.onednn`. `_gradient_by_library` takes the workspace."""
    images = _as_images(x)
    stats = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    workspace = jax.ShapeDtypeStruct((_workspace_size(x),), jnp.uint8)
    shapes = (jax.ShapeDtypeStruct(images.shape, x.dtype), stats, stats, workspace)
    call = jax.ffi.ffi_call(onednn.NORMALIZE, shapes)
    y, *rest = call(images, scale, bias, relu=relu, epsilon=np.float32(epsilon), devices=np.int64(1))
    return y.reshape(x.shape), *rest


def _gradient_by_library(
    g: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, workspace: Any, *, epsilon: float, relu: bool
) -> Any:
    """Computes `_gradient` with the library of `cnnjax.ops.onednn`."""
    images = _as_images(x)
    stats = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    call = jax.ffi.ffi_call(onednn.NORMALIZE_BACKWARD, (jax.ShapeDtypeStruct(images.shape, x.dtype), stats, stats))
    operands = (_as_images(g), images, scale, bias, mean, var, workspace)
    dx, *rest = call(*operands, relu=relu, epsilon=np.float32(epsilon), devices=np.int64(1))
    return dx.reshape(x.shape), *rest


def _call(
    *operands: Any, target: str, shape: tuple[int, ...], dtype: Any = jnp.float32, devices: int = 1, **options: bool
) -> Any:
    """Calls a function of batch_norm_shards.h by its FFI name, `target`; returns an array of this shape and dtype."""
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, dtype))
    return call(*operands, **options, devices=np.int64(devices))


def _combine_moments(moments: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """Combines the means and variances [2, C] of each device into those of all images (Chan, Golub, LeVeque 1979).

    All devices have equally many images; `names` are the axes of the mesh that shard them.
    """
    means, variances = jnp.moveaxis(lax.all_gather(moments, names), 1, 0)
    mean = means.mean(axis=0, keepdims=True)
    return jnp.concatenate([mean, (variances + jnp.square(means - mean)).mean(axis=0, keepdims=True)])


def _normalize_by_shards(context: Any) -> Callable[..., Any]:
    """Returns the function that computes `_normalize` on several devices, each with its own images."""
    moments_of = on_each_device(context, _call, Axes(("nhwc",), "sc", divisible="nc"), combine=_combine_moments)
    apply = on_each_device(context, _call, Axes(("nhwc", "sc"), "nhwc", divisible="nc"))

    def normalize(x: Any, scale: Any, bias: Any, *, epsilon: float, relu: bool) -> Any:
        """Computes `_normalize`."""
        images = _as_images(x)
        mean, var = moments_of(images, target=onednn.MOMENTS, shape=(2, scale.size))
        by_channel = jnp.stack([mean, scale * lax.rsqrt(var + epsilon), bias])
        y = apply(images, by_channel, target=onednn.APPLY_MOMENTS, shape=images.shape, dtype=x.dtype, relu=relu)
        return y.reshape(x.shape), mean, var, jnp.zeros(_workspace_size(x), jnp.uint8)

    return normalize


def _gradient_by_shards(context: Any) -> Callable[..., Any]:
    """Returns the function that computes `_gradient` on several devices, each with its own images."""
    sums_of = on_each_device(context, _call, Axes(("nhwc", "nhwc", "sc"), "tc", divisible="nc"))
    apply = on_each_device(context, _call, Axes(("nhwc", "nhwc", "sc"), "nhwc", divisible="nc"))

    def gradient(
        g: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, workspace: Any, *, epsilon: float, relu: bool
    ) -> Any:
        """Computes `_gradient`."""
        del workspace
        g, images = _as_images(g), _as_images(x)
        inverse, pixels = lax.rsqrt(var + epsilon), x.size / scale.size
        factor = scale * inverse
        by_channel = jnp.stack([mean, factor, bias])
        options = {"target": onednn.GRADIENT_SUMS, "shape": (2, scale.size), "relu": relu}
        sums, products = sums_of(g, images, by_channel, **options)
        of_sums = jnp.stack([-factor * jnp.square(inverse) * products, -factor * sums]) / pixels
        options = {"target": onednn.APPLY_GRADIENT_SUMS, "shape": images.shape, "dtype": x.dtype, "relu": relu}
        dx = apply(g, images, jnp.concatenate([by_channel, of_sums]), **options)
        return dx.reshape(x.shape), products * inverse, sums

    return gradient


batch_norm_p = _primitive("batch_norm", _normalize, _shapes, _normalize_by_library, _normalize_by_shards)
tangent_p = _primitive("batch_norm_tangent", _tangent, lambda dx, *rest, **options: [dx.update(weak_type=False)])
gradient_p = _primitive(
    "batch_norm_gradient",
    _gradient,
    lambda g, x, scale, bias, *rest, **options: [value.update(weak_type=False) for value in (x, scale, bias)],
    _gradient_by_library,
    _gradient_by_shards,
)


# --------------------------------------------------------------------------------------------------------- derivatives


def _batch_norm_jvp(primals: Any, tangents: Any, **options: Any) -> Any:
    """Differentiates `batch_norm_p`. The tangents of mean and variance matter for second derivatives only."""
    x, scale, bias = primals
    y, mean, var, workspace = batch_norm_p.bind(*primals, **options)
    dx, dscale, dbias = map(ad.instantiate_zeros, tangents)
    (dy,) = tangent_p.bind(dx, dscale, dbias, x, scale, bias, mean, var, workspace, **options)
    axes, wide = tuple(range(x.ndim - 1)), dx.astype(scale.dtype)
    dvar = 2 * jnp.mean((x.astype(scale.dtype) - lax.expand_dims(mean, axes)) * wide, axes)
    return (y, mean, var, workspace), (dy, jnp.mean(wide, axes), dvar, ad.Zero(jax.typeof(workspace).to_tangent_aval()))


def _tangent_transpose(cotangents: Any, *operands: Any, **options: Any) -> Any:
    """Transposes `tangent_p` with respect to its first three operands."""
    (g,) = cotangents
    if isinstance(g, ad.Zero):
        return [ad.Zero(operand.aval) if ad.is_undefined_primal(operand) else None for operand in operands]
    gradients = gradient_p.bind(g, *operands[3:], **options)
    return [
        gradient if ad.is_undefined_primal(operand) else None
        for operand, gradient in zip(operands[:3], gradients, strict=True)
    ] + [None] * 6


def _gradient_transpose(cotangents: Any, g: Any, *residuals: Any, **options: Any) -> Any:
    """Transposes `gradient_p` with respect to its first operand."""
    tangents = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    return [*tangent_p.bind(*tangents, *residuals, **options), *[None] * 6]


def _formula_jvp(
    primitive: Primitive, formula: Callable[..., Any], linear: int, primals: Any, tangents: Any, **options: Any
) -> Any:
    """Differentiates a primitive by its formula. It is linear in its first `linear` operands."""
    out = primitive.bind(*primals, **options)
    result = [ad.Zero(jax.typeof(value).to_tangent_aval()) for value in out]
    if any(not isinstance(tangent, ad.Zero) for tangent in tangents[:linear]):
        changes = [ad.instantiate_zeros(tangent) for tangent in tangents[:linear]]
        result = primitive.bind(*changes, *primals[linear:], **options)
    varied = [i for i in range(linear, len(primals) - 1) if not isinstance(tangents[i], ad.Zero)]  # not the workspace
    if varied:

        def of_varied(*values: Any) -> Any:
            """Returns the formula as a function of the operands that vary."""
            operands = list(primals)
            for i, value in zip(varied, values, strict=True):
                operands[i] = value
            return list(formula(*operands, **options))

        changes = [tangents[i] for i in varied]
        more = jax.jvp(of_varied, [primals[i] for i in varied], changes)[1]
        result = [ad.add_tangents(a, b) for a, b in zip(result, more, strict=True)]
    return out, result


ad.primitive_jvps[batch_norm_p] = _batch_norm_jvp
ad.primitive_jvps[tangent_p] = functools.partial(_formula_jvp, tangent_p, _tangent, 3)
ad.primitive_jvps[gradient_p] = functools.partial(_formula_jvp, gradient_p, _gradient, 1)
ad.primitive_transposes[tangent_p] = _tangent_transpose
ad.primitive_transposes[gradient_p] = _gradient_transpose
