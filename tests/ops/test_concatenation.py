"""Concatenation as a primitive: equal to JAX's in every derivative and transform."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.concatenation import concatenate

Join = Callable[[list[jax.Array]], jax.Array]


def everything(join: Join, arrays: list[jax.Array]) -> Any:
    """The result, derivatives in both modes and of both orders, with one array fixed, and of several examples."""

    def loss(arrays: list[jax.Array]) -> jax.Array:
        return jnp.sum(jnp.sin(join(arrays).astype(jnp.float32)))

    return {
        "result": join(arrays),
        "tangent": jax.jvp(join, (arrays,), (arrays,)),
        "second": jax.jvp(jax.grad(loss), (arrays,), (arrays,)),
        "of one": jax.grad(lambda x: loss([arrays[0], x, arrays[2]]))(arrays[1]),
        "of several": jax.vmap(lambda x: join([x, arrays[1][0], arrays[2][0]]))(arrays[0]),
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_concatenation_is_that_of_jax_in_all_derivatives(dtype: Any) -> None:
    arrays = [jnp.arange(6 * c, dtype=dtype).reshape(2, 3, c) / 7 for c in (1, 4, 2)]
    expected = everything(partial(jnp.concatenate, axis=-1), arrays)
    for function in (everything, jax.jit(everything, static_argnums=0)):
        jax.tree.map(np.testing.assert_array_equal, function(concatenate, arrays), expected)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends copy bfloat16 as it is")
def test_a_cpu_copies_bfloat16_without_conversions() -> None:
    arrays = [jnp.ones((2, 3, c), jnp.bfloat16) for c in (4, 2)]
    text = jax.jit(concatenate).lower(arrays).compile().as_text() or ""
    assert " concatenate(" in text
    assert " convert(" not in text
