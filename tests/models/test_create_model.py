"""create_model: the errors of wrong call strings, renamed arguments, and the table of networks."""

import ast
import pathlib
import types

import jax.numpy as jnp
import pytest

import cnnjax.models
from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.models import MODELS, count_params, create_model, list_models

BAD_CALLS = {
    "lenet": "did you mean 'lenet5'?",
    "resnet20": "did you mean 'cifar_resnet20'?",
    "cifar_resnet20(scan=True, stochastic_depth=0.1)": "scan = True: expected stochastic_depth = 0",
    "resnet50_v2(scan=True, layout='slim')": "scan = True: the units of a loop must be equal",
    "lenet5(foo=1)": "has no argument 'foo'; valid, of 14: pool",
    "lenet5(num_classes=3)": "has no argument 'num_classes'",
    "lenet5(parent=None)": "has no argument 'parent'",
    'lenet5("max")': "expected arguments by name",
    "sequential('conv(8, 3)|dense', 'relu')": "expected arguments by name",
    'lenet5(pool="mean")': "unknown pool 'mean'; valid: average, max",
    'lenet5(activation="rel")': "unknown activation 'rel'; did you mean 'relu'? valid, of 13: relu,",
    "lenet5(activation=3)": "activation = 3: expected str",
    "lenet5(dropout=1.0)": "dropout = 1.0: expected at least 0 and less than 1",
    'lenet5(dropout="0.5")': "dropout = '0.5': expected float",
    "lenet5(padding=-1)": "padding = -1",
    "lenet5(padding=True)": "padding = True: expected int",
    "mlp(features=300)": "features = 300: expected (int, ...)",
    "mlp(features=(300, 0))": "features = (300, 0): expected at least 1 for each",
    "mlp(init_bound=-1)": "init_bound = -1",
    'cifar_resnet20(shortcut="C")': "unknown shortcut 'C'; valid: A, B, none",
    "cifar_resnet20(depth=21)": "depth = 21: expected 6n+2",
    "cifar_resnet20(depth=2)": "depth = 2: expected 6n+2",
    'cifar_resnet20(depth="20")': "depth = '20': expected int",
    "resnet51": "did you mean 'resnet50'?",
    "tiny": "`cnnjax models` lists all; --import=FILE adds your own",
    'resnet50(norm="lrn")': "unknown norm 'lrn'; valid: batch, group, none",
    'resnet50(head="dense")': "unknown head 'dense'; valid: conv, fc, gap",
    'resnet50(padding_mode="same")': "unknown padding_mode 'same'; valid: edge, reflect, zeros",
    'resnet50(initializer="msra")': "unknown initializer 'msra'; valid: gaussian, he, lecun, torch, truncated, xavier",
    "resnet50(stochastic_depth=1.0)": "stochastic_depth = 1.0: expected at least 0 and less than 1",
    "resnet50(stage_sizes=(3, 0))": "stage_sizes = (3, 0): expected at least 1 for each",
    "resnet50(width=0)": "width = 0: expected more than 0",
    "resnet50(se=-1)": "se = -1: expected at least 0",
    'resnet50(block="wide")': "unknown block 'wide'; valid: basic, bottleneck",
    'resnet50(stride="2x2")': "unknown stride '2x2'; valid: 1x1, 3x3, slim",
    "resnet18(groups=2)": "groups = 2: expected 1 for block = 'basic'",
    "plain18(stochastic_depth=0.1)": "shortcut = 'none': expected no stochastic_depth and no zero_init",
    'resnet50(zero_init=True, norm="none")': "zero_init = True: expected a normalization with a scale",
    'resnet50_v2(layout="slimm")': "unknown layout 'slimm'; did you mean 'slim'? valid: bare, both, keras",
    "cifar_plain20(stochastic_depth=0.1)": "stochastic_depth = 0.1: expected 0, as shortcut = 'none'",
    "wide_resnet28_10(depth=27)": "depth = 27: expected 6n+4",
    "resnext29_8x64d(depth=28)": "depth = 28: expected 9n+2",
    "densenet121(growth_rate=0)": "growth_rate = 0: expected more than 0",
    "densenet121(compression=1.5)": "compression = 1.5: expected more than 0 and at most 1",
    "mobilenet_v1(width=-0.5)": "width = -0.5: expected more than 0",
    "mobilenet_v1(repeats=-1)": "repeats = -1: expected at least 0",
    'mlp(head="gap")': "unknown head 'gap'; valid: fc",
    "alexnet(groups=5)": "groups = 5: expected a divisor of the channels",
    "alexnet(features=(96, 256))": "features = (96, 256): expected 5 values",
    "alexnet(padding=-1)": "padding = -1: expected at least 0",
    "alexnet_2012(hidden=(64,))": "hidden = (64,): expected 2 values",
    "alexnet_2012(deep_std=-0.1)": "deep_std = -0.1: expected at least 0",
    "zfnet(features=(96, 256))": "features = (96, 256): expected 5 values",
    "vgg16(stage_sizes=(1, 1))": "stage_sizes = (1, 1): expected 5 values",
    "vgg16(third_kernel=2)": "unknown third_kernel 2; valid: 1, 3",
    'vgg16(norm="instance")': "unknown norm 'instance'; valid: batch, group, lrn, none",
    "googlenet(kernel=4)": "unknown kernel 4; valid: 3, 5",
    "googlenet(last_pool=4)": "unknown last_pool 4; valid: 2, 3",
    "googlenet(aux_dropout=1.0)": "aux_dropout = 1.0: expected at least 0 and less than 1",
    "bn_inception(projected=0)": "projected = 0: expected more than 0",
    "inception_resnet_v2(stage_sizes=(1, 2))": "stage_sizes = (1, 2): expected 3 values",
    "prelunet_a(kernel=5)": "unknown kernel 5; valid: 2, 3",
    "prelunet_a(features=(96, 256))": "features = (96, 256): expected 4 values",
    "prelunet_a(levels=())": "levels = (): expected at least 1 for each",
    'prelunet_a(head="conv")': "unknown head 'conv'; valid: fc, gap",
    "nin_cifar10(stages=((192, 160, 96),))": "stages has (192, 160, 96): expected (features, kernel) for each, as in",
    "nin_cifar10(stages=(5,))": "stages has 5: expected (features, kernel) for each",
    "nin_cifar10(stages=())": "stages = (): expected (features, kernel) for each",
    "nin_cifar10(stages=(((), 5),))": "stages has ((), 5): expected (features, kernel) for each",
    "nin_cifar10(stages=(((192, -3), 5),))": "stages has ((192, -3), 5): expected (features, kernel) for each",
    "nin_cifar10(stages=(((192,), 0),))": "stages has ((192,), 0): expected (features, kernel) for each",
    "nin_cifar10(stages=(((192,), 5.5),))": "of integers above 0",
    'nin_cifar10(last_pool="mean")': "unknown last_pool 'mean'; valid: average, max",
    "squeezenet1_0(padding=-1)": "padding = -1: expected at least 0",
    "squeezenet1_1(pools=(3, 12))": "pools = (3, 12): expected numbers of fire modules, from 2 to 9",
}


def test_count_params_counts_for_other_classes_and_images() -> None:
    assert count_params(create_model("lenet5", 10), (28, 28, 1)) == 61_706
    assert count_params(create_model("cifar_resnet20", 100), (32, 32, 3)) == 269_722 + 90 * 65
    assert count_params(create_model("perceptron", 3), (4, 4, 2)) == 33 * 3


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


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("vgg11(features=[8, 8, 8, 8, 8])", "vgg11(features=(8, 8, 8, 8, 8))"),
        ("nin_cifar10(stages=[[[8, 4], 5], [[8], 3]])", "nin_cifar10(stages=(((8, 4), 5, 1, None, True), ((8,), 3)))"),
    ],
)
def test_lists_are_tuples_as_fields_have_to_be_hashable(given: str, meant: str) -> None:
    model = create_model(given, 10)
    assert model == create_model(meant, 10)
    assert hash(model)
    assert count_params(model, (32, 32, 3))
    fields = spec.parse(given.replace("nin_cifar10", "f").replace("vgg11", "f")).kwargs
    lists = {name: [list(x) if isinstance(x, tuple) else x for x in value] for name, value in fields.items()}
    assert hash(type(model)(**lists)) == hash(type(model)(**fields))  # from Python


@pytest.mark.parametrize("dtype", ["flaot32", "int32"])
def test_an_unknown_dtype_is_one_line(dtype: str) -> None:
    with pytest.raises(InputError, match=f"unknown dtype '{dtype}'; .*valid: bfloat16, float32"):
        create_model("lenet5", dtype=dtype)


def test_two_families_cannot_use_one_name() -> None:
    row = MODELS["lenet5"]
    families = types.ModuleType("one"), types.ModuleType("two")
    for family in families:
        family.__dict__["VARIANTS"] = {"net": row}
    with pytest.raises(ValueError, match="two: the name 'net' is taken"):
        cnnjax.models._merge(families)


SHARED = ("__init__", "blocks", "layer_list", "layers", "network", "normalization")
FAMILY_FILES = [path for path in pathlib.Path(cnnjax.models.__file__).parent.glob("*.py") if path.stem not in SHARED]


@pytest.mark.parametrize("path", FAMILY_FILES, ids=lambda path: path.stem)
def test_a_family_imports_only_layers_and_takes_its_convolutions_there(path: pathlib.Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert {module for module in modules if module.startswith("cnnjax")} <= {
        f"cnnjax.models.{name}" for name in SHARED[1:]
    }
    made_elsewhere = {"Conv", "ConvTranspose", "ConvLocal", "conv_general_dilated"}
    assert not [
        node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in made_elsewhere
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cifar_resnet20(ghost=4)", "cifar_resnet20(ghost_batch_size=4)"),
        ("densenet40_12(dropout=0.2)", "densenet40_12(block_dropout=0.2)"),
        ("wide_resnet28_10(dropout=0.3, depth=16)", "wide_resnet28_10(block_dropout=0.3, depth=16)"),
    ],
)
def test_an_old_argument_name_means_the_new_one(old: str, new: str) -> None:
    assert create_model(old, 10) == create_model(new, 10)
    assert spec.render(cnnjax.models.rename_arguments(spec.parse(old))) == new


def test_wide_resnet_for_imagenet_keeps_its_classifier_dropout() -> None:
    assert create_model("wide_resnet50_2(dropout=0.2)", 10).dropout == 0.2


def test_list_models_takes_a_part_of_a_name_or_a_pattern() -> None:
    assert list_models() == list(MODELS)
    assert list_models("vgg1*_bn") == ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
    assert "cifar_resnet20" in list_models("resnet20")
