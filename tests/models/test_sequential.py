"""Networks from a list of layers: the numbers of a lecture, the logits at the end, and the errors of a wrong list."""

import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import pretrained, summarize
from cnnjax.errors import InputError
from cnnjax.evaluation import probe
from cnnjax.models import count_params, create_model, layer_list
from cnnjax.pretrained.export import write
from cnnjax.pretrained.file_networks import FileOptions
from cnnjax.pretrained.library import list_layers
from cnnjax.state import path_name
from tests import tiny
from tests.models import calls, zoo

LECTURE = "conv(32, 5)|relu|max_pool(2)|conv(64, 5)|relu|conv(128, 5)|relu|gap|dense(500)|relu|dense(10)"


def build(layers: str, num_classes: int = 10) -> Any:
    return create_model(f"sequential({layers!r})", num_classes)


def shapes(layers: str, num_classes: int = 10, train: bool = False) -> Any:
    """The shape of the logits of two images of 9x9x2."""
    model, x = build(layers, num_classes), jax.ShapeDtypeStruct((2, 9, 9, 2), np.float32)

    def run(x: Any) -> Any:
        variables = model.init(zoo.key(), x, train=False)
        return calls.apply(model, variables, x, train=train, rngs={"dropout": zoo.key()}, mutable=list(variables))[0]

    return jax.eval_shape(run, x).shape


def test_the_network_of_the_lecture_has_its_parameters() -> None:
    rows = summarize.layers(build(LECTURE), (28, 28, 1))
    assert [row.params for row in rows] == [832, 0, 51_264, 204_928, 0, 64_500, 5_010]
    assert sum(row.params for row in rows) == 326_534
    assert [row.output for row in rows][:4] == [(24, 24, 32), (12, 12, 32), (8, 8, 64), (4, 4, 128)]
    assert count_params(create_model("sequential", 10), (28, 28, 1)) == 326_534  # without a list, it is the example


def test_the_last_layer_has_as_many_outputs_as_there_are_classes() -> None:
    for layers, given, classes in (
        ("conv(4, 3)|gap|dense", 7, 7),
        ("conv(4, 3)|gap|dense(7)", 7, 7),
        ("conv(4, 3)|gap|dense(7)", 0, 7),
        ("conv(4, 3)|gap|dense", 0, 10),
        ("conv(4, 3)|relu|conv(7, 1)|gap", 0, 7),
    ):
        assert build(layers, given).num_classes == classes
        assert shapes(layers, given) == (2, classes)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("conv(5, 3)", (7, 6, 5)),
        ("conv(5, 3, padding='same')", (9, 8, 5)),
        ("conv(5, 3, 2, 'same')", (5, 4, 5)),
        ("conv(5, (3, 1), padding=(1, 2))", (9, 12, 5)),
        ("conv(6, 3, dilation=2, groups=2)", (5, 4, 6)),
        ("depthwise_conv(3, multiplier=3)", (7, 6, 6)),
        ("max_pool", (4, 4, 2)),
        ("max_pool(3, 2)", (4, 3, 2)),
        ("max_pool(3, 2, ceil=True)", (4, 4, 2)),
        ("avg_pool(3, 2, padding=1)", (5, 4, 2)),
        ("avg_pool(2, padding='same')", (5, 4, 2)),
        ("lrn", (9, 8, 2)),
        ("batch_norm", (9, 8, 2)),
        ("gap", (2,)),
        ("flatten", (144,)),
        ("dense(5)", (5,)),
        ("dropout(0.2)", (9, 8, 2)),
    ],
)
def test_a_layer_has_the_output_size_that_keras_and_pytorch_give(layer: str, shape: tuple[int, ...]) -> None:
    model = create_model(f"sequential({layer + '|dense'!r}, features_only=True)", 10)
    image = jax.ShapeDtypeStruct((1, 9, 8, 2), np.float32)
    features, _ = jax.eval_shape(lambda x: model.init_with_output(zoo.key(), x, train=False), image)
    ((_, output),) = features.items()
    assert output.shape[1:] == shape


def test_every_layer_works_where_it_may_stand() -> None:
    """Each with its defaults in a small network: in training and evaluation, with parameters that get a gradient."""
    arguments = {
        "conv": "conv(4, 3)",
        "depthwise_conv": "depthwise_conv(3)",
        "dense": "dense(4)",
        "group_norm": "group_norm(2)",
    }
    for name in layer_list.LAYERS:
        layer = arguments.get(name, name)
        after = "relu|dense" if name in ("gap", "flatten", "dense") else "conv(2, 1)|gap|dense"
        for train in (False, True):
            assert shapes(f"conv(4, 3)|{layer}|{after}", train=train) == (2, 10), name


def test_dropout_and_batch_norm_tell_training_from_evaluation() -> None:
    x = calls.noise(8, 5, 5, 2)
    for layer in ("dropout(0.5)", "batch_norm"):
        model = build(f"conv(3, 3)|{layer}|gap|dense")

        @jax.jit
        def run(x: Any, model: Any = model) -> Any:
            variables = model.init(zoo.key(), x, train=False)
            options = {"rngs": {"dropout": zoo.key(1)}, "mutable": ["batch_stats"]}
            trained, _ = calls.apply(model, variables, x, train=True, **options)
            return trained - calls.apply(model, variables, x, train=False)

        assert np.abs(run(x)).max() > 1e-3


def test_features_are_named_by_their_layers_and_include_activations() -> None:
    model = create_model(f"sequential({LECTURE!r}, features_only=True)", 10)
    x = calls.noise(1, 28, 28, 1)
    features, _ = jax.jit(lambda x: model.init_with_output(zoo.key(), x, train=False))(x)
    assert set(features) == {"conv1", "max_pool1", "conv2", "conv3", "gap1", "dense1"}
    assert all(float(features[name].min()) == 0 for name in ("conv1", "conv2", "dense1"))


def test_flattening_is_implied_and_the_list_may_say_it() -> None:
    x = calls.noise(2, 6, 5, 3)
    implied, said = build("conv(4, 3)|relu|dense"), build("conv(4, 3)|flatten|relu|dense")
    variables = implied.init(zoo.key(), x, train=False)
    np.testing.assert_array_equal(
        calls.apply(implied, variables, x, train=False), calls.apply(said, variables, x, train=False)
    )
    # Both know the size of the feature maps, which a file of another library orders otherwise.
    for model in (implied, said):
        assert list_layers(model, (6, 5, 3))[-1].fc_input == (4, 3, 4)


WRONG = {
    "conv(32, 5)|relu|max_pol(2)|gap|dense": "layer 3, 'max_pol(2)': unknown layer 'max_pol'; did you mean 'max_pool'?",
    "Conv2D(32, 5)|gap|dense": "layer 1, 'Conv2D(32, 5)': unknown layer; it is called 'conv' here",
    "conv(8, 3)|gap|Linear(10)": "layer 3, 'Linear(10)': unknown layer; it is called 'dense' here",
    "conv(8, 3)|MaxPool(2)|dense": "layer 2, 'MaxPool(2)': unknown layer; it is called 'max_pool' here",
    "conv(8, 3)|gap|dense(7)": "layer 3, 'dense(7)': gives 7 logits, but there are 10 classes; write dense(10)",
    "conv(7, 1)|gap": "layer 1, 'conv(7, 1)': gives 7 logits, but there are 10 classes; write conv(10, ...)",
    "conv(8, 3)|gap|dense|softmax": "layer 4, 'softmax': the loss applies softmax to the logits by itself",
    "conv(8, 3)|relu": "layer 2, 'relu': is the last layer; expected 'dense' after it",
    "conv(8, 3)||dense": "layer 2, '': expected a layer, as in 'conv(32, 3)|relu|gap|dense'",
    "": "layer 1, '': expected a layer",
    "conv(8)|dense": "layer 1, 'conv(8)': missing a required argument: 'kernel'; expected conv(channels: int, kernel:",
    "conv(8, 3, filters=2)|dense": "layer 1, 'conv(8, 3, filters=2)': has no argument 'filters'; valid: bias,",
    "conv(99999999999, 3)|dense": "channels = 99999999999: expected at most 1,000,000,000",
    "leaky_relu(1e300)|dense": "slope = 1e+300: expected at most 1,000,000,000",
    "conv(0, 3)|dense": "layer 1, 'conv(0, 3)': channels = 0: expected at least 1",
    "conv(8, '3')|dense": "kernel = '3': expected int or (int, int)",
    "conv(8, 3, padding='full')|dense": "padding = 'full': expected 'valid', 'same' or a number of pixels",
    "conv(8 3)|dense": "layer 1, 'conv(8 3)': 'conv(8 3)' is not a call string",
    "dropout(1.0)|dense": "layer 1, 'dropout(1.0)': rate = 1.0: expected at least 0 and less than 1",
    "batch_norm(epsilon=0)|dense": "epsilon = 0: expected more than 0",
    "gap|dense|relu|dense": "layer 2, 'dense': expected the number of features, as in dense(100)",
    "flatten|conv(8, 3)|dense": "layer 2, 'conv(8, 3)': needs feature maps, but layer 1, 'flatten', gives a vector",
}  # fmt: skip


@pytest.mark.parametrize("layers", WRONG)
def test_a_wrong_list_names_the_layer_and_its_position(layers: str) -> None:
    with pytest.raises(InputError, match=re.escape(WRONG[layers])) as caught:
        build(layers)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("conv(8, 3)|max_pool(2)|conv(8, 5)|dense", "layer 3, 'conv(8, 5)': a window of 5 does not fit a side of 3"),
        ("conv(8, 3, groups=2)|dense", "layer 1, 'conv(8, 3, groups=2)': groups = 2: expected a divisor of"),
        ("max_pool(3, padding=2)|dense", "padding = 2: expected at most half the window, 1"),
        ("conv(6, 1)|group_norm(4)|dense", "layer 2, 'group_norm(4)': groups = 4: expected a divisor of the 6"),
        ("conv(10, 1)|flatten", "layer 2, 'flatten': gives 640 logits for 10 classes; use 'gap'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_images_names_the_layer(layers: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        summarize.layers(build(layers), (8, 8, 1))


def test_fields_of_other_networks_work_and_the_others_are_refused() -> None:
    model = create_model(
        "sequential('conv(4, 3, padding=1)|gap|dense', initializer='he', padding_mode='edge')", 10, "bfloat16"
    )
    assert (model.dtype, model.initializer, model.padding_mode) == (jax.numpy.bfloat16, "he", "edge")
    for argument, message in (
        ("activation='gelu'", "has no argument 'activation'"),
        ("initializer='hee'", "unknown initializer 'hee'; did you mean 'he'?"),
        ("ghost_batch_size=-1", "ghost_batch_size = -1: expected at least 0"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            create_model(f"sequential('gap|dense', {argument})", 10)


def test_a_list_trains_and_gives_its_layers_to_another_head(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Through the doors that every network has: a run's folder, its features, and config.init."""
    model = "sequential('conv(4, 3)|batch_norm|relu|max_pool(2)|flatten|dropout(0.1)|dense')"
    tiny.run(tmp_path / "run", digits_dir, model=model)
    network = pretrained.load(str(tmp_path / "run"))
    assert list(probe.features_only_model(network).layers.split("|")) == model.split("'")[1].split("|")
    ours = jax.eval_shape(lambda x: create_model(model, 2).init(zoo.key(), x, train=False), np.zeros((1, 8, 8, 1)))
    plan = pretrained.match_for_transfer(ours, network, "run", ["a", "b"])
    assert "the head, 'dense1', is new" in plan.description
    assert len(plan.paths) == 8 - 2


def test_a_file_of_other_classes_may_be_read_for_a_list_that_says_its_number(tmp_path: pathlib.Path) -> None:
    model, path = build("conv(4, 3)|gap|dense(7)", 7), tmp_path / "net.safetensors"
    variables = jax.jit(lambda x: model.init(zoo.key(), x, train=False))(np.zeros((1, 28, 28, 1), np.float32))
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    write(path, {path_name(names): np.asarray(leaf) for names, leaf in leaves})
    network = pretrained.load(str(path), FileOptions(model="sequential('conv(4, 3)|gap|dense(10)')"))
    assert network.model.num_classes == 7
    assert len(network.data.classes) == 7
