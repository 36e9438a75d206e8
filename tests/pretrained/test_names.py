"""Name mappings of Keras, TF-Slim and Caffe."""

import jax
import numpy as np
import pytest

from cnnjax.models import create_model
from cnnjax.pretrained import convert
from cnnjax.pretrained.library import Layer
from tests.parity.harness import random_variables

SMALL = {
    "keras": ("mobilenet_v1_025(same=True)", (32, 32, 3)),
    "slim": ("mobilenet_v1_025(same=True)", (32, 32, 3)),
    "caffe": ("squeezenet1_1", (64, 64, 3)),
}


@pytest.mark.parametrize("library", SMALL)
def test_exported_variables_import_unchanged(library: str) -> None:
    text, shape = SMALL[library]
    model = create_model(text, 10, "float32")
    tree = random_variables(model, np.zeros((1, *shape), np.float32))
    flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    back = convert.import_variables(model, shape, convert.export_variables(model, shape, flat, library), library).check(
        "theirs"
    )
    assert back.keys() == flat.keys()
    for name, leaf in flat.items():
        np.testing.assert_array_equal(back[name], leaf, name)


def test_a_background_class_is_dropped_unless_the_network_has_it() -> None:
    text, shape = SMALL["slim"]
    theirs, head = {}, "MobilenetV1/Logits/Conv2d_1c_1x1/biases"
    for classes in (10, 11, 12):
        model = create_model(text, classes, "float32")
        if not theirs:
            tree = random_variables(create_model(text, 11, "float32"), np.zeros((1, *shape), np.float32))
            flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
            theirs = convert.export_variables(create_model(text, 11, "float32"), shape, flat, "slim")
        found = convert.import_variables(model, shape, theirs | {"global_step": np.array(7)}, "slim")
        assert not found.unused
        if classes < 12:
            np.testing.assert_array_equal(found.check("it")["params/head/bias"], theirs[head][11 - classes :])
        else:
            assert found.misshaped["params/head/bias"] == (head, (12,), (11,))


def test_a_missing_gamma_is_ones() -> None:
    text, shape = SMALL["keras"]
    model = create_model(text, 10, "float32")
    tree = random_variables(model, np.zeros((1, *shape), np.float32))
    flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    theirs = convert.export_variables(model, shape, flat, "keras")
    found = convert.import_variables(
        model, shape, {n: a for n, a in theirs.items() if not n.endswith("gamma")}, "keras"
    )
    np.testing.assert_array_equal(found.check("it")["params/conv0/norm/scale"], 1)
    found = convert.import_variables(model, shape, {n: a for n, a in theirs.items() if "conv1_bn" not in n}, "keras")
    assert {name for name, _ in found.missing.values()} == {
        f"conv1_bn/{n}" for n in ("beta", "moving_mean", "moving_variance")
    }


def test_keras_automatic_names_count_from_anywhere_and_the_classifier_has_any_name() -> None:
    text, shape = "xception", (71, 71, 3)
    model = create_model(text, 10, "float32")
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0, impl="rbg"), np.zeros((1, *shape), np.float32), train=False)
    )
    flat = {
        "/".join(p.key for p in path): np.full(leaf.shape, i, np.float32)
        for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(shapes))
    }
    theirs = convert.export_variables(model, shape, flat, "keras")
    moved = {}
    for name, array in theirs.items():
        layer, _, variable = name.partition("/")
        kind, _, number = layer.rpartition("_")
        if layer == "predictions":
            layer = "fc1000"
        elif number.isdigit() or layer in ("conv2d", "batch_normalization"):
            layer = f"{kind}_{int(number) + 95}" if number.isdigit() else f"{layer}_95"
        moved[f"{layer}/{variable}"] = array
    back = convert.import_variables(model, shape, moved, "keras").check("theirs")
    assert all((back[name] == leaf).all() for name, leaf in flat.items())


# As the authors' files have them: prototxt for Caffe, keras.applications for Keras.
NAMES = {
    ("caffe", "vgg"): {"conv3_2/conv": "conv3_2", "fc6": "fc6"},
    ("caffe", "googlenet"): {
        "conv1/conv": "conv1/7x7_s2",
        "inception_4a/branch3_1/conv": "inception_4a/5x5_reduce",
        "inception_4a/branch4_2/conv": "inception_4a/pool_proj",
        "aux_4d/conv/conv": "loss2/conv",
        "aux_4d/fc": "loss2/fc",
        "head": "loss3/classifier",
    },
    ("caffe", "nin"): {"conv3/conv": "conv3", "conv4/conv": "conv4-1024", "cccp6/conv": "cccp6", "cccp8": "cccp8-1024"},
    ("caffe", "resnet"): {
        "norm1": "bn_conv1",
        "conv2_3/conv1": "res2c_branch2a",
        "conv3_1/shortcut_norm": "bn3a_branch1",
        "conv4_1/conv3": "res4a_branch2c",
        "conv4_23/norm2": "bn4b22_branch2b",
        "conv5_3/conv2": "res5c_branch2b",
    },
    ("keras", "vgg"): {"conv3_2/conv": "block3_conv2", "fc6": "fc1", "fc7": "fc2", "fc8": "predictions"},
    ("keras", "densenet"): {"block3_layer24/norm2": "conv4_block24_1_bn", "trans3/conv": "pool4_conv"},
}


@pytest.mark.parametrize(("library", "family"), NAMES)
def test_layers_have_the_names_that_authors_gave_them(library: str, family: str) -> None:
    names = NAMES[library, family]
    ours = [Layer(path, {}, ()) for path in names]
    assert convert.find_library(library).families[family](ours, {}) == names


def test_blocks_of_the_shallow_resnet_of_caffe_have_letters() -> None:
    ours = [Layer(f"conv{stage}_{size}/conv1", {}, ()) for stage, size in ((2, 3), (3, 4), (4, 6), (5, 3))]
    names = convert.find_library("caffe").families["resnet"](ours, {})
    assert list(names.values()) == [f"res{block}_branch2a" for block in ("2c", "3d", "4f", "5c")]
