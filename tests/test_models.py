"""Every network: its published numbers, its shapes, and its arithmetic against implementations that share no code."""

import ast
import functools
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax.models
from cnnjax.errors import InputError
from cnnjax.models import MODELS, count_params, create_model, layers, lenet

# Trainable parameters and BatchNorm statistics, as printed in the papers or counted in other implementations.
PUBLISHED = {
    "perceptron": (7_850, 0),  # (784 + 1) * 10
    "mlp": (238_510, 0),  # LeCun 1998: 784-300-10
    "deep_mlp": (12_115_010, 0),  # Ciresan 2010, Table 1: 12.11 million weights
    "lenet5": (61_706, 0),  # 156 + 2,416 + 48,120 + 10,164 + 850
    "lenet5_tanh": (61_706, 0),
    "lenet5_1998": (60_000, 0),  # LeCun 1998, sec. II.B: 156 + 12 + 1,516 + 32 + 48,120 + 10,164
    "cifar_resnet20": (269_722, 1_376),  # these of option A: akamaster/pytorch_resnet_cifar10
    "cifar_resnet32": (464_154, 2_272),
    "cifar_resnet44": (658_586, 3_168),
    "cifar_resnet56": (853_018, 4_064),
    "cifar_resnet110": (1_727_962, 8_096),
    "cifar_resnet1202": (19_421_274, 89_632),
    "cifar_plain20": (269_722, 1_376),  # He 2016, sec. 4.2: as many as option A's
    "cifar_plain56": (853_018, 4_064),
    "cifar_plain110": (1_727_962, 8_096),
    'cifar_resnet20(shortcut="B")': (272_474, 1_568),  # these of option B: pytorchcv
    'cifar_resnet56(shortcut="B")': (855_770, 4_256),
    'cifar_resnet110(shortcut="B")': (1_730_714, 8_288),
}

# What is computed in full: the smallest network of each class, found by itself, and others that go another way.
SHALLOW = ["cifar_resnet20(depth=8)", 'cifar_resnet20(depth=8, shortcut="B")', "cifar_plain20(depth=8)"]
_BY_SIZE = sorted(MODELS, key=lambda name: MODELS[name].params, reverse=True)
_SMALLEST = {type(create_model(name, 10)): name for name in _BY_SIZE} | {type(create_model(SHALLOW[0], 10)): SHALLOW[0]}
COMPUTED = sorted({*_SMALLEST.values(), *SHALLOW, "mlp", "lenet5_tanh"})
AGAINST_PYTORCH = ["mlp", "lenet5", "lenet5_tanh", "cifar_resnet20", 'cifar_resnet20(shortcut="B")', "cifar_plain20"]

# The output of each layer, for one image: [height, width, maps].
SHAPES = {
    "lenet5": {"c1": (28, 28, 6), "c3": (10, 10, 16), "c5": (1, 1, 120), "f6": (84,)},
    "lenet5_tanh": {"c1": (28, 28, 6), "c3": (10, 10, 16), "c5": (1, 1, 120), "f6": (84,)},
    "lenet5_1998": {
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
        "c5": (1, 1, 120),
        "f6": (84,),
    },
    **{
        text: {
            "stem_conv": (32, 32, 16),
            "stage1_block3": (32, 32, 16),
            "stage2_block1": (16, 16, 32),
            "stage2_block3": (16, 16, 32),
            "stage3_block1": (8, 8, 64),
            "stage3_block3": (8, 8, 64),
        }
        for text in ("cifar_resnet20", 'cifar_resnet20(shortcut="B")', "cifar_plain20")
    },
}

# Table I of LeCun 1998, as it is printed: rows are maps of S2, columns are maps of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""

BAD_CALLS = {
    "lenet": "did you mean 'lenet5'?",
    "lenet5(foo=1)": "has no argument 'foo'; did you mean 'pool'? valid: activation, dropout, padding, pool",
    "lenet5(num_classes=3)": "has no argument 'num_classes'",
    "lenet5(parent=None)": "has no argument 'parent'",
    'lenet5("max")': "by name",
    'lenet5(pool="mean")': "unknown pool 'mean'; valid: max, average",
    'lenet5(activation="rel")': "unknown activation 'rel'; valid: relu,",
    "lenet5(activation=3)": "activation = 3: expected str",
    "lenet5(dropout=1.0)": "dropout = 1.0: expected at least 0 and less than 1",
    'lenet5(dropout="0.5")': "dropout = '0.5': expected float",
    "lenet5(padding=-1)": "padding = -1",
    "lenet5(padding=True)": "padding = True: expected int",
    "mlp(features=300)": "features = 300: expected tuple[int, ...]",
    "mlp(features=(300, 0))": "features = (300, 0)",
    "mlp(init_bound=-1)": "init_bound = -1",
    'cifar_resnet20(shortcut="C")': "unknown shortcut 'C'; valid: A, B, none",
    "cifar_resnet20(depth=21)": "depth = 21: expected 6n+2",
    "cifar_resnet20(depth=2)": "depth = 2: expected 6n+2",
    'cifar_resnet20(depth="20")': "depth = '20': expected int",
}


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed, impl="rbg")  # much faster than the default where a network has hundreds of layers


def example(text: str, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Random images of the shape that the network takes."""
    shape = MODELS[text.partition("(")[0]].input_shape
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype(np.float32)


def started(text: str) -> tuple[Any, dict[str, Any]]:
    """The network and its variables as training starts with them."""
    model = create_model(text, 10)
    return model, jax.device_get(jax.jit(lambda x: model.init(key(), x, train=False))(example(text, 1)))


@functools.cache
def made(text: str) -> tuple[Any, dict[str, Any]]:
    """The same, but biases and BatchNorm's variables are random, so that none hides behind a 0 or a 1."""
    model, variables = started(text)
    rng = np.random.default_rng(0)

    def shake(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
        name = path[-1].key
        noise = rng.uniform(0.5, 1.5, leaf.shape) if name in ("var", "scale") else rng.normal(0, 0.1, leaf.shape)
        return np.asarray(leaf if name in ("kernel", "coefficient") else noise, np.float32)

    return model, jax.tree_util.tree_map_with_path(shake, variables)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def layer_outputs(model: Any, variables: Any, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits, and the output of each layer that the network itself names."""
    apply = jax.jit(functools.partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"]))
    logits, seen = jax.device_get(apply(variables, x))
    return logits, {name: value["__call__"][0] for name, value in seen["intermediates"].items() if name != "__call__"}


# -------------------------------------------------------------------------------------------------- numbers and shapes


@pytest.mark.parametrize("text", sorted({*MODELS, *PUBLISHED}))
def test_counts_are_the_published_ones_and_logits_are_float32(text: str) -> None:
    model, x = create_model(text, 10, "bfloat16"), jax.ShapeDtypeStruct(example(text, 3).shape, jnp.float32)
    logits, variables = jax.eval_shape(lambda x: model.init_with_output(key(), x, train=False), x)
    assert (logits.shape, logits.dtype) == ((3, 10), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    if text in MODELS:
        assert size(variables["params"]) == MODELS[text].params
    if text in PUBLISHED:
        assert (size(variables["params"]), size(variables.get("batch_stats", {}))) == PUBLISHED[text]


def test_count_params_counts_for_other_classes_and_images() -> None:
    assert count_params(create_model("lenet5", 10), (28, 28, 1)) == 61_706
    assert count_params(create_model("cifar_resnet20", 100), (32, 32, 3)) == 269_722 + 90 * 65
    assert count_params(create_model("perceptron", 3), (4, 4, 2)) == 33 * 3


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_complete(name: str) -> None:
    row = MODELS[name]
    assert str(row.year) in row.paper
    assert len(row.input_shape) == 3
    assert create_model(name, row.num_classes).num_classes == row.num_classes


@pytest.mark.parametrize("text", SHAPES)
def test_layers_have_the_published_shapes(text: str) -> None:
    model, x = create_model(text, 10), example(text, 1)
    init = functools.partial(model.init, train=False, capture_intermediates=True, mutable=True)
    outputs = jax.eval_shape(init, key(), x)["intermediates"]
    assert {name: outputs[name]["__call__"][0].shape[1:] for name in SHAPES[text]} == SHAPES[text]


# ------------------------------------------------------------------------------------------- ways to compute a network


@pytest.mark.parametrize("text", COMPUTED)
def test_eager_jit_and_one_by_one_agree(text: str) -> None:
    model, variables = made(text)
    x = example(text, 3)
    eager = model.apply(variables, x, train=False)
    np.testing.assert_allclose(
        jax.jit(lambda x: model.apply(variables, x, train=False))(x), eager, rtol=1e-4, atol=1e-4
    )
    one = jax.jit(jax.vmap(lambda image: model.apply(variables, image[None], train=False)[0]))
    np.testing.assert_allclose(one(x), eager, rtol=1e-4, atol=1e-4)
    assert np.ptp(eager, axis=0).min() > 1e-4  # the images do get different answers


@pytest.mark.parametrize("text", COMPUTED)
def test_every_parameter_learns(text: str) -> None:
    model, variables = made(text)
    x, labels = example(text, 8), jnp.arange(8)
    rest = {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        logits, _ = model.apply({"params": params, **rest}, x, train=True, mutable=list(rest))
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("text", SHALLOW)
def test_training_moves_the_statistics_and_uses_the_batch(text: str) -> None:
    model, variables = made(text)
    x = example(text, 4)
    run = jax.jit(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"]))
    logits, updated = run(x)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), updated, {"batch_stats": variables["batch_stats"]})
    assert all(jax.tree.leaves(moved))
    others, _ = run(np.concatenate([x[:1], example(text, 3, seed=1)]))
    assert np.abs(logits[0] - others[0]).max() > 1e-3


@pytest.mark.parametrize("text", COMPUTED)
def test_bfloat16_is_close_and_keeps_float32_state(text: str) -> None:
    (model, variables), half, x = made(text), create_model(text, 10, "bfloat16"), example(text, 4)
    exact, _ = layer_outputs(model, variables, x)
    rough, inner = layer_outputs(half, variables, x)
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() / np.ptp(exact) < 0.05
    assert {value.dtype for value in inner.values()} == {jnp.dtype("bfloat16")}
    _, state = jax.eval_shape(lambda x: half.apply(variables, x, train=True, mutable=["batch_stats"]), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {np.dtype("float32")}


@pytest.mark.parametrize("text", ["lenet5(dropout=0.5)", "mlp(dropout=0.5)"])
def test_dropout_acts_in_training_alone(text: str) -> None:
    model, variables = made(text)
    x = example(text)
    first, second = (model.apply(variables, x, train=True, rngs={"dropout": key(seed)}) for seed in (1, 2))
    assert np.abs(first - second).max() > 1e-3
    plain = create_model(text.partition("(")[0], 10).apply(variables, x, train=True)
    np.testing.assert_array_equal(model.apply(variables, x, train=False), plain)


# ------------------------------------------------------------------------------------------------- the parts, in numpy


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
    variables = model.init(key(), np.zeros((1, 14, 14, 6), np.float32))
    assert size(variables["params"]) == 1_516
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
    model, variables = made("lenet5_1998")
    _, outputs = layer_outputs(model, variables, example("lenet5_1998", 1))
    pixels = {name: value.shape[1] * value.shape[2] if value.ndim == 4 else 1 for name, value in outputs.items()}
    per_pixel = {name: size(layer) for name, layer in variables["params"].items()}
    for name in ("s2", "s4"):  # four inputs share the coefficient
        per_pixel[name] = 5 * variables["params"][name]["bias"].size
    assert sum(per_pixel[name] * pixels[name] for name in per_pixel) + 84 * 10 == 340_908


def test_lenet_of_1998_computes_what_the_paper_says() -> None:
    model, variables = made("lenet5_1998")
    params, x = variables["params"], example("lenet5_1998", 4)
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
    with pytest.raises(InputError, match=r"num_classes = 100: .*10 digits"):
        create_model("lenet5_1998", 100)
    with pytest.raises(ValueError, match=r"images of 28x28: .* takes 32x32"):
        jax.eval_shape(lambda x: create_model("lenet5_1998", 10).init(key(), x, train=False), jnp.zeros((1, 28, 28, 1)))


def test_lenet_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="images of 8x8: LeNet-5 needs at least 28x28"):
        jax.eval_shape(lambda x: create_model("lenet5", 10).init(key(), x, train=False), jnp.zeros((1, 8, 8, 1)))


def test_lenet_of_1998_learns_with_plain_cross_entropy() -> None:
    model, variables = started("lenet5_1998")
    params, x, labels = variables["params"], example("lenet5_1998", 10), jnp.arange(10)

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


@pytest.mark.parametrize("text", ["cifar_resnet20", "cifar_plain20"])
def test_without_residuals_only_shortcuts_remain(text: str) -> None:
    """With every F(x) = 0, option A leaves every second pixel between zeros, and a plain network forgets its input."""
    model, variables = made(text)
    variables = jax.tree.map(np.copy, variables)
    for name, block in variables["params"].items():
        if name.startswith("stage"):
            block["bn2"] = jax.tree.map(np.zeros_like, block["bn2"])
    logits, outputs = layer_outputs(model, variables, example(text))
    y = np.maximum(outputs["stem_bn"], 0)
    for stage, maps in ((2, 32), (3, 64)):
        wide = np.zeros((2, y.shape[1] // 2, y.shape[2] // 2, maps), np.float32)
        for row in range(wide.shape[1]):
            for column in range(wide.shape[2]):
                wide[:, row, column, maps // 4 : maps // 4 + maps // 2] = y[:, 2 * row, 2 * column]
        y = wide if text == "cifar_resnet20" else np.zeros_like(wide)
        np.testing.assert_array_equal(outputs[f"stage{stage}_block1"], y)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, y.mean((1, 2)) @ head["kernel"] + head["bias"], rtol=1e-5, atol=1e-5)


def test_initial_weights_are_drawn_as_published() -> None:
    params = started("cifar_resnet20")[1]["params"]
    assert np.std(params["stage3_block2"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert np.std(params["stage3_block1"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    params = started("lenet5_1998")[1]["params"]
    bounds = {"c1": 2.4 / 25, "c5": 2.4 / 400, "f6": 2.4 / 120}
    for name, bound in bounds.items():
        assert 0.95 * bound < np.abs(params[name]["kernel"]).max() <= bound
    largest = np.abs(params["c3"]["kernel"]).max((0, 1))
    assert 0.9 * 2.4 / 75 < largest[:18].max() <= 2.4 / 75  # three maps in
    assert 0.9 * 2.4 / 150 < largest[-6:].max() <= 2.4 / 150  # six maps in
    params = started("deep_mlp")[1]["params"]
    assert np.abs(params["hidden5"]["kernel"]).max() == pytest.approx(0.05, rel=1e-3)


# ------------------------------------------------------------------------------------------------------------- PyTorch


def torch_functions() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")
    return torch, torch.nn.functional


def torch_tensors(torch: Any, variables: Any) -> dict[str, Any]:
    """Our variables as 'layer.part.name' -> tensor in PyTorch's layouts."""

    def convert(leaf: np.ndarray) -> Any:
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, tuple(range(leaf.ndim)))
        return torch.tensor(np.asarray(leaf).transpose(axes))

    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {".".join(entry.key for entry in path[1:]): convert(leaf) for path, leaf in leaves}


def torch_forward(text: str, w: dict[str, Any], x: Any, train: bool) -> Any:
    """The networks once more, from PyTorch's functions; the tensors of BatchNorm's statistics are updated in place."""
    torch, f = torch_functions()
    if text == "mlp":
        x = f.linear(x.permute(0, 2, 3, 1).flatten(1), w["hidden1.kernel"], w["hidden1.bias"])
        return f.linear(1.7159 * torch.tanh(x * 2 / 3), w["output.kernel"], w["output.bias"])
    if text.startswith("lenet5"):
        pool, act = (f.avg_pool2d, torch.tanh) if text == "lenet5_tanh" else (f.max_pool2d, torch.relu)
        x = pool(act(f.conv2d(x, w["c1.kernel"], w["c1.bias"], padding=0 if text == "lenet5_tanh" else 2)), 2)
        x = pool(act(f.conv2d(x, w["c3.kernel"], w["c3.bias"])), 2)
        x = act(f.conv2d(x, w["c5.kernel"], w["c5.bias"])).flatten(1)
        return f.linear(act(f.linear(x, w["f6.kernel"], w["f6.bias"])), w["output.kernel"], w["output.bias"])

    def norm(x: Any, name: str) -> Any:
        mean, var, scale, bias = (w[f"{name}.{part}"] for part in ("mean", "var", "scale", "bias"))
        return f.batch_norm(x, mean, var, scale, bias, training=train, momentum=0.1, eps=1e-5)

    x = torch.relu(norm(f.conv2d(x, w["stem_conv.kernel"], padding=1), "stem_bn"))
    for name in [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]:
        stride = 2 if name in ("stage2_block1", "stage3_block1") else 1
        y = f.conv2d(x, w[f"{name}.conv1.kernel"], stride=stride, padding=1)
        y = f.conv2d(torch.relu(norm(y, f"{name}.bn1")), w[f"{name}.conv2.kernel"], padding=1)
        y = norm(y, f"{name}.bn2")
        if stride == 2 and "B" in text:
            x = norm(f.conv2d(x, w[f"{name}.shortcut_conv.kernel"], stride=2), f"{name}.shortcut_bn")
        elif stride == 2:
            zeros = torch.zeros(x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3] // 2)
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        x = torch.relu(y if "plain" in text else x + y)
    return f.linear(x.mean((2, 3)), w["head.kernel"], w["head.bias"])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("text", AGAINST_PYTORCH)
def test_logits_and_statistics_are_those_of_pytorch(text: str, train: bool) -> None:
    torch, _ = torch_functions()
    model, variables = made(text)
    x = example(text, 4)
    tensors = torch_tensors(torch, variables)
    with torch.no_grad():
        expected = torch_forward(text, tensors, torch.tensor(x.transpose(0, 3, 1, 2)), train).numpy()
    logits, state = jax.jit(lambda x: model.apply(variables, x, train=train, mutable=["batch_stats"]))(x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = ".".join(entry.key for entry in path[1:])
        theirs = tensors[name].numpy()
        if train and name.endswith("var"):  # PyTorch records the variance as n / (n - 1) times what it divides by
            n = 4 * {"1": 32, "2": 16, "3": 8}[name[5] if name.startswith("stage") else "1"] ** 2
            old = 0.9 * np.asarray(at(variables["batch_stats"], name))
            theirs = old + (theirs - old) * (n - 1) / n
        np.testing.assert_allclose(leaf, theirs, rtol=1e-4, atol=1e-5, err_msg=name)


def at(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree[part]
    return tree


# ---------------------------------------------------------------------------------------------------- making a network


@pytest.mark.parametrize("text", BAD_CALLS)
def test_a_wrong_call_is_one_line_that_says_what_is_right(text: str) -> None:
    with pytest.raises(InputError) as caught:
        create_model(text, 10)
    assert BAD_CALLS[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_of_the_call_string_reach_the_network() -> None:
    model = create_model('lenet5(pool="average", activation="mish", dropout=0, padding=1)', 7, "bfloat16")
    assert (model.pool, model.activation, model.dropout, model.padding) == ("average", "mish", 0, 1)
    assert (model.num_classes, model.dtype) == (7, jnp.dtype("bfloat16"))
    assert create_model("cifar_resnet20(depth=26)", 10).depth == 26


def test_two_families_cannot_use_one_name() -> None:
    row = MODELS["lenet5"]
    families = types.ModuleType("one"), types.ModuleType("two")
    for family in families:
        family.__dict__["VARIANTS"] = {"net": row}
    with pytest.raises(ValueError, match="two has a network named 'net'"):
        cnnjax.models._merge(families)


FAMILY_FILES = [
    path for path in pathlib.Path(cnnjax.models.__file__).parent.glob("*.py") if path.stem not in ("__init__", "layers")
]


@pytest.mark.parametrize("path", FAMILY_FILES, ids=lambda path: path.stem)
def test_a_family_imports_only_layers_and_takes_its_convolutions_there(path: pathlib.Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert {module for module in modules if module.startswith("cnnjax")} == {"cnnjax.models.layers"}
    made_elsewhere = {"Conv", "ConvTranspose", "ConvLocal", "conv_general_dilated"}
    assert not [
        node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in made_elsewhere
    ]


# -------------------------------------------------------------------------------------------------------------- layers


def test_a_strided_convolution_pads_both_sides() -> None:
    """A point at the corner falls under the kernel's centre; 'SAME' would pad only below and to the right."""
    model: Any = layers.conv(1, 3, stride=2, use_bias=False)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0, 0] = 1
    variables = model.init(key(), x)
    y = model.apply(variables, x)
    assert y.shape == (1, 2, 2, 1)
    assert y[0, 0, 0, 0] == variables["params"]["kernel"][1, 1, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups", "shape", "params"),
    [
        (3, 1, None, 1, (9, 9, 4), (3, 3, 2, 4)),
        ((1, 7), 1, None, 1, (9, 9, 4), (1, 7, 2, 4)),
        (5, 1, 0, 1, (5, 5, 4), (5, 5, 2, 4)),
        (1, 2, None, 1, (5, 5, 4), (1, 1, 2, 4)),
        (3, 2, None, 2, (5, 5, 4), (3, 3, 1, 4)),
    ],
)
def test_convolutions_have_the_asked_shape(
    kernel: Any, stride: int, padding: Any, groups: int, shape: tuple, params: tuple
) -> None:
    model: Any = layers.conv(4, kernel, stride, padding, groups)
    y, variables = model.init_with_output(key(), np.ones((1, 9, 9, 2), np.float32))
    assert y.shape[1:] == shape
    assert variables["params"]["kernel"].shape == params


def test_pools() -> None:
    x = jnp.arange(25, dtype=jnp.float32).reshape(1, 5, 5, 1)
    assert layers.max_pool(x, 2)[0, ..., 0].tolist() == [[6, 8], [16, 18]]
    assert layers.avg_pool(x, 2)[0, ..., 0].tolist() == [[3, 5], [13, 15]]
    assert layers.max_pool(x, 3, 2, 1)[0, ..., 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]
    assert layers.avg_pool(x, 3, 2, 1)[0, 0, 0, 0] == pytest.approx((0 + 1 + 5 + 6) / 9)
    assert layers.global_mean(x).tolist() == [[12]]


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_one"),
    [
        ("relu", 0, 1),
        ("leaky_relu", -0.01, 1),
        ("elu", np.expm1(-1), 1),
        ("selu", 1.7580993 * np.expm1(-1), 1.0507010),
        ("swish", -1 / (1 + np.e), 1 / (1 + 1 / np.e)),
        ("mish", -np.tanh(np.log1p(np.exp(-1))), np.tanh(np.log1p(np.e))),
        ("tanh", np.tanh(-1), np.tanh(1)),
        ("scaled_tanh", -1.0, 1.0),
        ("sigmoid", 1 / (1 + np.e), 1 / (1 + 1 / np.e)),
    ],
)
def test_activations(name: str, at_minus_one: float, at_one: float) -> None:
    assert layers.activation(name)(jnp.array([-1.0, 1.0])) == pytest.approx(np.array([at_minus_one, at_one]), abs=2e-5)


def test_every_activation_has_its_values_here() -> None:
    marks = test_activations.pytestmark[0].args[1]
    assert {row[0] for row in marks} == set(layers.ACTIVATIONS)
