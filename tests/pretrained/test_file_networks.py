"""Weight files of any network: what our exports say of themselves, what people say of other files, and their names."""

import codecs
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import export, pretrained
from cnnjax.cli.main import main
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.models import MODELS, create_model
from cnnjax.pretrained import convert, description, file_networks, files
from cnnjax.pretrained import export as state_dicts
from cnnjax.pretrained.library import Arrays, list_layers
from tests.test_export import network

Lines = list[str]


def constants(model: Any, shape: tuple[int, ...]) -> Arrays:
    """Variables by path, each of another number, which take no memory."""
    paths = [(path, size) for layer in list_layers(model, shape) for path, size in layer.arrays.items()]
    return {path: np.broadcast_to(np.float32(i), size) for i, (path, size) in enumerate(paths)}


def smallest_of_families() -> set[str]:
    """The name of the smallest network of each family."""
    families: dict[str, str] = {}
    for name in sorted(MODELS, key=lambda name: MODELS[name].params):
        families.setdefault(convert.family(create_model(name)), name)
    return set(families.values())


FAST = smallest_of_families()
ALL = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow, pytest.mark.zoo]) for name in MODELS]


@pytest.mark.parametrize("name", ALL)
def test_every_export_of_every_network_is_read_back(name: str) -> None:
    model, shape = create_model(name), MODELS[name].input_shape
    variables = constants(model, shape)
    for library in (*convert.torch_libraries(model), state_dicts.OWN):
        arrays = state_dicts.to_state_dict(model, shape, variables, library)
        found = files.match(model, shape, files.WeightSet("torch", arrays)).check(name)
        assert found.keys() == variables.keys()
        for path, array in variables.items():
            assert found[path].shape == array.shape
            assert found[path].flat[0] == found[path].flat[-1] == array.flat[0], (library, path)


# Networks with each kind of names and of preprocessing.
DESCRIBED: dict[str, tuple[str, tuple[int, ...], dict[str, str]]] = {
    "our own names": ("lenet5", (28, 28, 1), {}),
    "a fixed head": ("lenet5_1998", (32, 32, 1), {"normalize": "range_to(-0.1, 1.175)"}),
    "a library's names": ("cifar_resnet20(depth=8)", (32, 32, 3), {"normalize": "constants((0.5, 0.4, 0), (1, 1, 2))"}),
    "a list of layers": ("sequential('conv(4, 5)|relu|max_pool(2)|flatten|dense')", (20, 24, 3), {"dtype": "bfloat16"}),
    "operations": ("mlp(features=(8,))", (12, 12, 3), {"preprocess": "resize(16)|center_crop(12)"}),
    "a protocol": ("lenet5(head='gap')", (32, 32, 1), {"protocol": "flip", "average": "logits"}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("kind", DESCRIBED)
def test_an_export_needs_nothing_else_to_predict_the_same(kind: str, suffix: str, tmp_path: pathlib.Path) -> None:
    model, shape, changes = DESCRIBED[kind]
    options: Any = changes
    net = network(model, shape, **options)
    (path,) = export.write(net, tmp_path / f"net{suffix}", log=lambda line: None)
    again = cnnjax.load(path, log=pytest.fail)
    variables = net.load_variables(sharding.make_mesh(), "last", print).variables
    trained = cnnjax.TrainedNetwork(net.config, net.data, net.model, variables, 7)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    np.testing.assert_array_equal(again.predict(images), trained.predict(images))
    assert again.classes == tuple("abcdefghij")
    assert again.data.shape == shape


def test_statistics_that_a_normalization_needs_are_in_the_file_or_said_to_be_left_out(tmp_path: pathlib.Path) -> None:
    net = network("mlp(features=(4,))", (6, 5, 3), normalize="mean_image")
    image = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    data = file_networks.dataclasses.replace(net.data, statistics=dict(net.data.statistics) | {"mean_image": image})
    (path,) = export.write(net.replace(data=data), tmp_path / "net.safetensors", log=lambda line: None)
    np.testing.assert_array_equal(cnnjax.load(path).data.statistics["mean_image"], image)

    large = np.zeros(description.MAX_VALUES + 1, np.float32)
    data = file_networks.dataclasses.replace(data, statistics=dict(data.statistics) | {"mean_image": large})
    lines: Lines = []
    (path,) = export.write(net.replace(data=data), tmp_path / "net.safetensors", log=lines.append)
    assert lines[-1] == f"{path} omits mean_image (too large): to use these weights, load the run's folder instead"
    with pytest.raises(InputError, match=r"normalize = 'mean_image' needs mean_image, which .* lacks"):
        cnnjax.load(path)


def test_an_image_is_classified_by_the_file_alone(tmp_path: pathlib.Path, capsys: Any) -> None:
    export.write(network("lenet5", (28, 28, 1)), tmp_path / "lenet.safetensors", log=lambda line: None)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert main(["predict", f"--init={tmp_path}/lenet.safetensors", "--json", "--top=10", f"{tmp_path}/x.png"]) == 0
    out, err = capsys.readouterr()
    found = {row["class"]: row["probability"] for row in json.loads(out)["top"]}
    expected = cnnjax.load(tmp_path / "lenet.safetensors").predict(pixels[None, :, :, None])[0]
    np.testing.assert_allclose([found[name] for name in "abcdefghij"], expected, rtol=1e-5)
    assert not err


def damaged(path: pathlib.Path, text: str) -> pathlib.Path:
    """A file whose description is `text`."""
    state_dicts.write(path, {"params/x": np.zeros(3, np.float32)}, text)
    return path


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"config": {}}', json.dumps({"config": dict.fromkeys(description.FIELDS, 3), "data": {}})]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_description_is_an_error_of_one_line(text: str, suffix: str, tmp_path: pathlib.Path) -> None:
    path = damaged(tmp_path / f"net{suffix}", text)
    with pytest.raises(InputError, match="its description of the network is damaged") as error:
        pretrained.load(path)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- what people say

TINY = "cifar_resnet20(depth=8)"


@pytest.fixture(scope="module")
def theirs() -> Arrays:
    """The state dict of a ResNet-8 for 3 classes, with a library's names."""
    model, shape = create_model(TINY, 3), (32, 32, 3)
    rng = np.random.default_rng(0)
    sizes = {path: size for layer in list_layers(model, shape) for path, size in layer.arrays.items()}
    own = {path: rng.uniform(0.5, 1.5, size).astype(np.float32) for path, size in sizes.items()}
    return state_dicts.to_state_dict(model, shape, own, "akamaster")


def write(folder: pathlib.Path, arrays: Arrays, name: str = "net.safetensors") -> pathlib.Path:
    state_dicts.write(folder / name, arrays)
    return folder / name


def variables_of(path: pathlib.Path | str, lines: Lines | None = None, **options: Any) -> Arrays:
    options = {"model": TINY, "normalize": "none"} | options
    net = cnnjax.load(path, log=[].append if lines is None else lines.append, **options)
    leaves = jax.tree_util.tree_leaves_with_path(net.variables)
    return {jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf) for key, leaf in leaves}


def same(found: Arrays, expected: Arrays) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_model_is_enough_and_what_is_assumed_is_said(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    path, lines = write(tmp_path, theirs), []
    net = cnnjax.load(path, model=TINY, log=lines.append)
    assert (net.classes, net.data.shape, net.config.normalize) == (("0", "1", "2"), (32, 32, 3), "none")
    assert "unknown normalization, so images are passed with values in [0, 1]" in lines[0]
    lines.clear()
    names = tmp_path / "names.txt"
    names.write_text("big cat\ndog\nfox, red\n")
    for classes in ("big cat,dog , fox", str(names), ("x", "y", "z")):
        net = cnnjax.load(
            path, model=TINY, normalize="symmetric", preprocess="resize(40)", classes=classes, log=lines.append
        )
        assert (len(net.classes), net.data.shape, net.config.normalize) == (3, (40, 40, 3), "symmetric")
    assert net.classes == ("x", "y", "z")
    assert not lines


def test_a_file_of_class_names_may_be_of_any_editor(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(codecs.BOM_UTF8 + "big cat  \r\n\tchat été\n  \nfox, red".encode())
    assert file_networks.class_names(str(path)) == ("big cat", "chat été", "fox, red")


def test_class_names_may_be_longer_than_a_path() -> None:
    names = tuple(f"class number {i}" for i in range(1000))
    assert file_networks.class_names(",".join(names)) == names
    with pytest.raises(InputError, match="is neither a run's folder, a weight file nor a name of"):
        cnnjax.load("x" * 300)


WRONG_OPTIONS = {
    "no model": ({}, "does not name its network: give --model"),
    "a misspelt model": ({"model": "cifar_resnet21"}, "unknown model 'cifar_resnet21'; did you mean"),
    "statistics": ({"model": TINY, "normalize": "mean_std"}, "needs statistics of the training images, which .* lacks"),
    "a misspelt normalization": ({"model": TINY, "normalize": "imagnet"}, "did you mean 'imagenet'"),
    "classes of another number": ({"model": TINY, "classes": "a,b"}, "2 class names are given, but the file has 3"),
    "classes of a data set": ({"model": TINY, "classes": "cifar10"}, "10 class names are given, but the file has 3"),
    "no classes": ({"model": TINY, "classes": ","}, "expected names with commas between them"),
    "a match": ({"model": TINY, "match": "shape"}, "match = 'shape': expected 'order'"),
    "another network": ({"model": "cifar_resnet20(depth=14)"}, r"the arrays do not match the network: \d+ missing"),
    "no room": ({"model": "vgg11", "preprocess": "resize(8)"}, "does not take images of 8x8x3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_OPTIONS)
def test_a_wrong_option_is_an_input_error(kind: str, theirs: Arrays, tmp_path: pathlib.Path) -> None:
    options, message = WRONG_OPTIONS[kind]
    with pytest.raises(InputError, match=message) as error:
        cnnjax.load(write(tmp_path, theirs), **options)
    assert len(str(error.value).splitlines()) <= 2
    assert len(str(error.value)) < 1000


def test_images_get_the_size_and_channels_that_the_arrays_need(tmp_path: pathlib.Path) -> None:
    model, shape = create_model("lenet5(head='fc', padding=0)", 7), (32, 32, 3)
    path = write(tmp_path, constants(model, shape))
    net = cnnjax.load(path, model="lenet5(padding=0)", normalize="none")
    assert (net.data.shape, len(net.classes)) == (shape, 7)
    assert net.predict(np.zeros((2, *shape), np.uint8)).shape == (2, 7)


def test_a_file_is_evaluated_probed_and_exported(digits_dir: str, tmp_path: pathlib.Path, capsys: Any) -> None:
    model = "mlp(features=(8,))"
    path = write(tmp_path, constants(create_model(model, 10), (8, 8, 1)))
    options: Any = {"init": str(path), "model": model, "normalize": "none", "preprocess": "resize(8)"}
    shared: Any = {"dataset": "digits", "split": "test[:30]", "data_dir": digits_dir}
    result = evaluate(tmp_path / "out", **options, **shared, log=lambda line: None)
    assert {name: result[name] for name in ("count", "model", "normalize")} == {
        "count": 30,
        "model": model,
        "normalize": "none",
    }
    with pytest.raises(InputError, match="names no data set; give --dataset"):
        evaluate(tmp_path / "out", **options, log=lambda line: None)
    flags = [f"--{name}={value}" for name, value in options.items()]
    data = [f"--{name}={value}" for name, value in shared.items()]
    assert main(["probe", *flags, *data, "--train_split=train[:60]", f"--out={tmp_path}"]) == 0
    assert main(["export", *flags, "--classes=a,b,c,d,e,f,g,h,i,j", f"--to={tmp_path}/again.safetensors"]) == 0
    net = cnnjax.load(tmp_path / "again.safetensors")
    assert (net.classes[2], net.data.shape, net.config.normalize) == ("c", (8, 8, 1), "none")


def test_what_describes_a_file_is_an_error_for_a_run(capsys: Any) -> None:
    for flag in ("--model=lenet5", "--normalize=none", "--classes=a", "--match=order", "--like=x"):
        assert main(["predict", "--workdir=runs/none", flag, "x.png"]) == 1
        assert "describes a weight file: give that file as the network" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- names that people leave


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


PREFIXES = (
    "module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "student.", "_model.", "my_net.", "a.b.",
    "_orig_mod.module.", "module._orig_mod.", "module.module.", "model.module._orig_mod.net.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off_and_said(prefix: str, theirs: Arrays, tmp_path: pathlib.Path) -> None:
    lines: Lines = []
    found = variables_of(write(tmp_path, prefixed(prefix, theirs)), lines)
    assert same(found, variables_of(write(tmp_path, theirs, "plain.pth")))
    assert any(f"without the prefix {prefix!r}" in line or repr(f"{prefix.split('.')[0]}.") in line for line in lines)


LITTER = {
    "thop": {"total_ops": np.zeros(1), "total_params": np.zeros(1), "layer1.0.total_ops": np.zeros(1)},
    "an averaged model": {"n_averaged": np.array(5)},
    "counters": {"bn1.num_batches_tracked": np.array(5)},
}


@pytest.mark.parametrize("kind", LITTER)
def test_counters_are_passed_over(kind: str, theirs: Arrays, tmp_path: pathlib.Path) -> None:
    for arrays in (theirs | LITTER[kind], prefixed("module.", theirs) | LITTER[kind]):
        found = variables_of(write(tmp_path, arrays, "with.safetensors"))
        assert same(found, variables_of(write(tmp_path, theirs)))


def test_arrays_outside_the_network_are_named(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    lines: Lines = []
    arrays = prefixed("net.", theirs) | {"criterion.weight": np.ones(3, np.float32)}
    assert same(variables_of(write(tmp_path, arrays), lines), variables_of(write(tmp_path, theirs, "plain.pth")))
    assert lines == ["net.safetensors: without the prefix 'net.'; not used: criterion.weight"]


def test_a_head_beside_the_backbone_is_found(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    arrays = {("head." if name.startswith("linear") else "backbone.") + name: array for name, array in theirs.items()}
    assert same(variables_of(write(tmp_path, arrays)), variables_of(write(tmp_path, theirs, "plain.pth")))


def test_averaged_weights_among_others_are_named_and_can_be_chosen(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    ema = {name: array + 1 for name, array in theirs.items()}
    path = write(tmp_path, prefixed("model.", theirs) | prefixed("ema_model.", ema))
    plain, averaged = variables_of(write(tmp_path, theirs, "a.pth")), variables_of(write(tmp_path, ema, "b.pth"))
    lines: Lines = []
    assert same(variables_of(path, lines), plain)
    assert "ema_model." in lines[0]
    for key in ("ema", "ema_model"):
        assert same(variables_of(f"{path}#{key}"), averaged)
    assert same(variables_of(f"{path}#model"), plain)
    with pytest.raises(InputError, match="holds no weights under 'emma'"):
        variables_of(f"{path}#emma")


def test_two_networks_in_a_file_have_to_be_chosen_from(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, prefixed("left.", theirs) | prefixed("right.", theirs))
    with pytest.raises(InputError, match="under several prefixes: choose one of #left, #right by FILE#NAME"):
        variables_of(path)
    assert variables_of(f"{path}#right")


# -------------------------------------------------------------------------------------- backbones that start a training


def start(path: pathlib.Path, may_lack: str = "head", model: str = TINY) -> tuple[pretrained.TransferPlan, Lines]:
    lines: Lines = []
    net = pretrained.load(path, pretrained.FileOptions(model=model, may_lack=may_lack), lines.append)
    ours: Any = create_model(model, 4)
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False))
    return pretrained.match_for_transfer(shapes, net, path.name, list("abcd"), may_lack == "any"), lines


def other_head(theirs: Arrays) -> Arrays:
    body = {name: array for name, array in theirs.items() if not name.startswith("linear")}
    return body | {"fc.1.weight": np.zeros((3, 64), np.float32), "fc.1.bias": np.zeros(3, np.float32)}


BACKBONES = {
    "no head": lambda theirs: {name: array for name, array in theirs.items() if not name.startswith("linear")},
    "another head": other_head,
    "a head of another input": lambda theirs: theirs | {"linear.weight": np.zeros((3, 7), np.float32)},
    "a wrapped backbone": lambda theirs: prefixed("module.backbone.", other_head(theirs)),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_starts_a_training_with_a_new_head(kind: str, theirs: Arrays, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, BACKBONES[kind](theirs))
    plan, lines = start(path)
    assert "the head, 'head', is new: the source has none that fits" in plan.description
    total = sum(len(layer.arrays) for layer in list_layers(create_model(TINY, 4), (32, 32, 3)))
    assert len(plan.paths) == total - 2
    assert any("fc.1.weight [3, 64]" in line for line in lines) == ("fc.1.bias" in "".join(BACKBONES[kind](theirs)))
    with pytest.raises(InputError, match="the arrays do not match the network"):
        variables_of(path)  # which cannot predict


def test_a_deeper_network_is_no_backbone_but_may_start_one_in_part(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    deeper = create_model("cifar_resnet20(depth=14)", 3)
    arrays = state_dicts.to_state_dict(deeper, (32, 32, 3), constants(deeper, (32, 32, 3)), "akamaster")
    path = write(tmp_path, arrays)
    with pytest.raises(InputError, match=r"the arrays do not match the network: \d+ not used"):
        start(path)
    plan, lines = start(path, "any")
    assert "not used: layer1.1." in lines[-1]
    assert len(plan.paths) == len(constants(create_model(TINY, 4), (32, 32, 3))) - 2
    shallower, _ = start(write(tmp_path, theirs), "any", "cifar_resnet20(depth=14)")
    assert "new: " in shallower.description
