"""LeNet-5 of 1998 against its paper: connections, arithmetic in numpy, codes, training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.errors import InputError
from cnnjax.models import create_model, lenet
from tests.models import zoo

# Table I of LeCun 1998, as it is printed: rows are channels of S2, columns are channels of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def conv_numpy(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias


def squash_numpy(x: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(2 / 3 * x)


def subsample_numpy(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return sums * layer["coefficient"] + layer["bias"]


def printed_table() -> np.ndarray:
    return np.array([[cell == "X" for cell in row] for row in TABLE_I.split()])


def test_c3_has_the_connections_of_table_1() -> None:
    table = printed_table()
    assert sorted(table.sum(0)) == [3] * 6 + [4] * 9 + [6]
    model: Any = lenet.TableConv()
    variables = model.init(zoo.key(), np.zeros((1, 14, 14, 6), np.float32))
    assert zoo.size(variables["params"]) == 1_516
    for source in range(6):
        x = np.zeros((1, 14, 14, 6), np.float32)
        x[..., source] = 1
        touched = (
            np.ptp(np.concatenate([model.apply(variables, x), model.apply(variables, 0 * x)]), axis=0).max((0, 1))
            > 1e-6
        )
        assert touched.tolist() == table[source].tolist()


def test_lenet_of_1998_has_the_paper_s_number_of_connections() -> None:
    """Sec. II.B: 340,908 in all, each unit's bias counted, and the 84 of each output unit."""
    model, variables = zoo.made("lenet5_1998")
    _, outputs = zoo.layer_outputs(model, variables, zoo.example("lenet5_1998", 1))
    pixels = {name: value.shape[1] * value.shape[2] if value.ndim == 4 else 1 for name, value in outputs.items()}
    per_pixel = {name: zoo.size(layer) for name, layer in variables["params"].items()}
    for name in ("s2", "s4"):  # four inputs share the coefficient
        per_pixel[name] = 5 * variables["params"][name]["bias"].size
    assert sum(per_pixel[name] * pixels[name] for name in per_pixel) + 84 * 10 == 340_908


def test_lenet_of_1998_computes_what_the_paper_says() -> None:
    model, variables = zoo.made("lenet5_1998")
    params, x = variables["params"], zoo.example("lenet5_1998", 4)
    kernel, column = np.zeros((5, 5, 6, 16)), 0
    for target, sources in enumerate(printed_table().T):
        for source in np.flatnonzero(sources):
            kernel[:, :, source, target] = params["c3"]["kernel"][:, :, column]
            column += 1
    y = squash_numpy(conv_numpy(x, params["c1"]["kernel"], params["c1"]["bias"]))
    y = squash_numpy(subsample_numpy(y, params["s2"]))
    y = squash_numpy(conv_numpy(y, kernel, params["c3"]["bias"]))
    y = squash_numpy(subsample_numpy(y, params["s4"]))
    y = squash_numpy(conv_numpy(y, params["c5"]["kernel"], params["c5"]["bias"]))[:, 0, 0]
    y = squash_numpy(y @ params["f6"]["kernel"] + params["f6"]["bias"])
    expected = [[-sum((a - b) ** 2 for a, b in zip(row, code, strict=True)) for code in lenet.codes()] for row in y]
    np.testing.assert_allclose(model.apply(variables, x, train=False), expected, rtol=1e-5, atol=1e-4)


def test_codes_are_ten_legible_bitmaps_far_from_each_other() -> None:
    codes = lenet.codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    apart = (codes[:, None] != codes[None]).sum(-1) + 84 * np.eye(10, dtype=int)
    assert apart.min() >= 8
    assert "".join(".#"[int(pixel > 0)] for pixel in codes[7][:14]) == "#########...##"  # the top of the seven


def test_lenet_of_1998_is_for_ten_digits_of_32x32() -> None:
    with pytest.raises(InputError, match=r"num_classes = 100: expected 10; .*10 digits"):
        create_model("lenet5_1998", 100)
    with pytest.raises(ValueError, match=r"images of 28x28: .* expects 32x32"):
        jax.eval_shape(
            lambda x: create_model("lenet5_1998", 10).init(zoo.key(), x, train=False), jnp.zeros((1, 28, 28, 1))
        )


def test_lenet_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="images of 8x8: LeNet-5 needs at least 28x28"):
        jax.eval_shape(lambda x: create_model("lenet5", 10).init(zoo.key(), x, train=False), jnp.zeros((1, 8, 8, 1)))


def test_lenet_of_1998_learns_with_plain_cross_entropy() -> None:
    model, variables = zoo.started("lenet5_1998")
    params, x, labels = variables["params"], zoo.example("lenet5_1998", 10), jnp.arange(10)

    @jax.jit
    def step(params: Any) -> tuple[Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            logits = model.apply({"params": params}, x, train=True)
            return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels])

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), value

    losses = []
    for _ in range(100):
        params, value = step(params)
        losses.append(float(value))
    assert losses[0] < 5
    assert losses[-1] < 0.1
