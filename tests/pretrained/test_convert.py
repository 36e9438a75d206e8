"""Conversion of weights to and from other libraries' names, and to files, without these libraries."""

import pathlib
import pickle
import re
import zipfile
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from safetensors.numpy import load_file

from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.pretrained import convert, export
from cnnjax.pretrained.library import Arrays, list_layers, substitute

SHORT = "stage_sizes=(1, 1, 1, 1)"

# Our network, the library, the size of images, and layers of ours = theirs.
ROWS = [
    ("alexnet_owt", "torchvision", (127, 160), "conv5=features.10 fc6=classifier.1 fc8=classifier.6"),
    ("vgg_a_bn", "torchvision", (64, 96), "conv5_2/norm=features.26 conv3_1/conv=features.8 fc6=classifier.0"),
    ("vgg_a", "timm", (64, 96), "conv5_2/conv=features.18 fc6=pre_logits.fc1 fc8=head.fc"),
    ("googlenet_torchvision_aux", "torchvision", (64, 64),
     "conv2/norm=conv3.bn inception_4a/branch2_2/conv=inception4a.branch2.1.conv aux_4d/fc=aux2.fc1"),
    (f"resnet18({SHORT})", "torchvision", (64, 64),
     "conv5_1/norm2=layer4.0.bn2 conv3_1/shortcut_conv=layer2.0.downsample.0"),
    (f"se_resnext50_32x4d({SHORT})", "timm", (64, 64), "conv2_1/se/squeeze=layer1.0.se.fc1 head=fc"),
    (f"se_resnet50(ceil_pool=True, {SHORT})", "timm_legacy", (64, 64),
     "norm1=layer0.bn1 conv5_1/se/excite=layer4.0.se_module.fc2 head=last_linear"),
    (f"resnet50({SHORT})", "pytorchcv", (64, 64),
     "norm1=features.init_block.conv.bn conv5_1/norm3=features.stage4.unit1.body.conv3.bn"),
    (f'resnet50_v2(layout="bare", {SHORT})', "timm", (64, 64),
     "conv5_1/shortcut_conv=stages.3.blocks.0.downsample.conv last_norm=norm head=head.fc"),
    (f'resnet50_v2(layout="both", se=16, {SHORT})', "pytorchcv", (64, 64),
     "norm1=features.init_block.bn conv2_1/norm1=features.stage1.unit1.body.conv1.bn"),
    ("cifar_preresnet164(stage_sizes=(2, 2, 2))", "pytorchcv", (32, 32),
     "norm1=features.stage1.unit1.body.conv1.bn"),
    ("squeezenet1_0", "torchvision", (64, 64), "fire5/squeeze/conv=features.7.squeeze conv10=classifier.1"),
    ("squeezenet1_1", "torchvision", (64, 64), "fire4/expand3x3/conv=features.6.expand3x3"),
    ("squeezenet1_1", "pytorchcv", (64, 64), "fire9/squeeze/conv=features.stage3.unit4.squeeze.conv"),
    (f"densenet121({SHORT})", "torchvision", (64, 64),
     "block4_layer1/norm2=features.denseblock4.denselayer1.norm2 trans3/conv=features.transition3.conv"),
    ("densenet_bc190_40(stage_sizes=(2, 2, 2))", "pytorchcv", (32, 32),
     "block3_layer2/conv1=features.stage3.unit2.conv1.conv trans1/norm=features.stage2.trans2.conv.bn"),
    ("densenet40_12(stage_sizes=(2, 2, 2))", "pytorchcv", (32, 32),
     "block1_layer2/norm1=features.stage1.unit2.conv.bn"),
    ("mobilenet_v1_025", "timm", (64, 64), "dw13/norm=blocks.4.1.bn1 pw7/conv=blocks.3.1.conv_pw"),
    ("mobilenet_v1_025", "pytorchcv", (64, 64), "pw12/conv=features.stage5.unit1.pw_conv.conv"),
    ("zfnet", "pytorchcv", (107, 128), "conv5=features.stage3.unit3.conv fc7=output.fc2.fc fc8=output.fc3"),
    ("nin_cifar10", "pytorchcv", (32, 32), "cccp3/conv=features.stage2.unit2.conv cccp6=output.final_conv.conv"),
    ('cifar_resnet20(shortcut="B", se=16)', "pytorchcv", (32, 32),
     "stage3_block3/se/excite=features.stage3.unit3.se.conv2 norm1=features.init_block.bn"),
    ('cifar_resnet20(shortcut="B")', "akamaster", (32, 32),
     "stage2_block1/shortcut_norm=layer2.0.shortcut.1 head=linear"),
    ("resnext29_8x64d", "pytorchcv", (32, 32),
     "stage1_block1/shortcut_conv=features.stage1.unit1.identity_conv.conv"),
    ("wide_resnet16_8", "pytorchcv", (32, 32),
     "conv4_2/norm2=features.stage3.unit2.body.conv2.bn conv1=features.init_block"),
]  # fmt: skip

# Networks with very many layers.
LARGE = [
    ("inception_v3_aux", "torchvision", (107, 128),
     "mixed_6a/branch2_3/conv=Mixed_6a.branch3x3dbl_3.conv mixed_7b/branch1_1/conv=Mixed_7b.branch1x1.conv "
     "mixed_7c/branch3_3/branch2_1/norm=Mixed_7c.branch3x3dbl_3b.bn aux/conv2/conv=AuxLogits.conv1.conv"),
    ("inception_v3", "pytorchcv", (107, 128),
     "mixed_7b/branch2_2/branch1_1/conv=features.stage3.unit2.branches.branch2.conv1x3.conv"),
    ("inception_v4", "timm", (107, 128),
     "mixed_7d/branch3_4/branch2_1/norm=features.21.branch2_3b.bn head=last_linear"),
    ("inception_v4", "pytorchcv", (107, 128),
     "mixed_5a/branch1_1/conv=features.init_block.block3.branches.branch1.conv.conv"),
    ("inception_resnet_v2", "timm", (107, 128),
     "block8_10/project=block8.conv2d mixed_7a/branch1_2/conv=mixed_7a.branch0.1.conv"),
    ("inception_resnet_v2", "pytorchcv", (107, 128), "block17_20/project=features.stage2.unit21.conv"),
    ("xception", "timm", (71, 71),
     "block1/norm2=block1.rep.4 block12/sepconv2/pointwise=block12.rep.4.pointwise block2/shortcut/norm=block2.skipbn"),
    ("xception", "pytorchcv", (71, 71),
     "block11/sepconv3/depthwise=features.stage3.unit9.body.block3.conv.dw_conv norm4=features.final_block.conv2.bn"),
    ("bn_inception", "pytorchcv", (64, 64),
     "inception_4e/branch1_1/norm=features.stage3.unit1.branches.branch1.conv1.bn"),
]  # fmt: skip


def network(text: str, size: tuple[int, int], num_classes: int = 10) -> tuple[nn.Module, tuple[int, int, int], Arrays]:
    """A network, the shape of its images, and random numbers for variables."""
    model, shape = create_model(text, num_classes), (*size, 3)
    rng = np.random.default_rng(0)
    found = [(path, size) for layer in list_layers(model, shape) for path, size in layer.arrays.items()]
    return model, shape, {path: rng.integers(-100, 100, size, np.int8) for path, size in found}


@pytest.mark.parametrize(
    ("text", "library", "size", "names"),
    [*ROWS, *(pytest.param(*row, marks=pytest.mark.slow) for row in LARGE)],
    ids=[f"{text}-{library}" for text, library, *_ in ROWS + LARGE],
)
def test_export_then_import_gives_the_same_variables(
    text: str, library: str, size: tuple[int, int], names: str
) -> None:
    model, shape, variables = network(text, size)
    theirs = convert.export_variables(model, shape, variables, library)
    for ours, name in (pair.split("=") for pair in names.split()):
        leaf = "scale" if f"params/{ours}/scale" in variables else "kernel"
        one, other = theirs[f"{name}.weight"], variables[f"params/{ours}/{leaf}"]
        assert np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None)), name
    counts = [name for name in theirs if name.endswith(".num_batches_tracked")]
    assert len(theirs) == len(variables) + len(counts), "two arrays of ours have one name there"
    assert len(counts) == sum(path.endswith("/mean") for path in variables)
    back = convert.import_variables(model, shape, theirs, library).check("theirs")
    assert back.keys() == variables.keys()
    assert all(np.array_equal(back[path], array) for path, array in variables.items())
    assert {array.dtype.name for array in back.values()} == {"float32"}


@pytest.mark.parametrize("library", convert.LIBRARIES)
def test_every_torch_family_is_tested(library: str) -> None:
    """All libraries, and all families of those for PyTorch, are in the rows above."""
    known = convert.find_library(library)
    rows = {convert.family(create_model(text, 10)) for text, name, *_ in ROWS + LARGE if name == library}
    same = {"pytorchcv": {"alexnet"}, "timm": {"densenet", "inception_v3"}}.get(library, set())  # tables of others
    assert known.framework != "torch" or known.families.keys() - same == rows


@pytest.mark.parametrize(("text", "size", "ours", "library", "theirs"), [
    ("alexnet_owt", (127, 160), "fc6", "torchvision", "classifier.1"),
    ("vgg_a", (64, 96), "fc6", "timm", "pre_logits.fc1"),
    ("googlenet_torchvision_aux", (64, 64), "aux_4a/fc", "torchvision", "aux1.fc1"),
])  # fmt: skip
def test_a_fully_connected_layer_takes_channels_first_order_in_torch(
    text: str, size: tuple[int, int], ours: str, library: str, theirs: str
) -> None:
    """Our feature maps are flattened with channels last, those of PyTorch with channels first."""
    model, shape, variables = network(text, size)
    window = next(layer.fc_input for layer in list_layers(model, shape) if layer.path == ours)
    assert min(window) > 1
    maps = np.random.default_rng(1).integers(-9, 9, window)
    kernel = variables[f"params/{ours}/kernel"].astype(int)
    weight = convert.export_variables(model, shape, variables, library)[f"{theirs}.weight"].astype(int)
    expected = weight.reshape(len(weight), -1) @ maps.transpose(2, 0, 1).reshape(-1)
    assert np.array_equal(maps.reshape(-1) @ kernel, expected)


TEXT, SIZE = "cifar_resnet20", (32, 32)

MISMATCHES = {
    "missing": (
        lambda theirs: theirs.pop("layer1.0.bn1.running_mean"),
        "1 missing\n  missing: layer1.0.bn1.running_mean [16] for batch_stats/stage1_block1/norm1/mean",
    ),
    "another shape": (
        lambda theirs: theirs.update({"linear.weight": np.zeros((100, 64))}),
        "1 of another shape\n  of another shape: linear.weight is [100, 64], expected [10, 64] for params/head/kernel",
    ),
    "unused": (
        lambda theirs: theirs.update({"layer4.0.conv1.weight": np.zeros((2, 3, 1, 1))}),
        "1 not used\n  not used: layer4.0.conv1.weight [2, 3, 1, 1]",
    ),
    "both ways": (
        lambda theirs: theirs.update({"fc.bias": theirs.pop("linear.bias")}),
        "1 missing, 1 not used\n  missing: linear.bias [10] for params/head/bias; not used: fc.bias [10]",
    ),
    "a transposed kernel": (
        lambda theirs: theirs.update({"conv1.weight": theirs["conv1.weight"].transpose(2, 3, 1, 0)}),
        "1 of another shape\n  of another shape: conv1.weight is [3, 3, 3, 16], expected [16, 3, 3, 3] for "
        "params/conv1/kernel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISMATCHES)
def test_mismatches_are_counted_and_named_with_their_shapes(name: str) -> None:
    change, expected = MISMATCHES[name]
    model, shape, variables = network(TEXT, SIZE)
    theirs = convert.export_variables(model, shape, variables, "akamaster")
    change(theirs)
    with pytest.raises(InputError) as error:
        convert.import_variables(model, shape, theirs, "akamaster").check("resnet20.th")
    assert str(error.value) == f"resnet20.th: the arrays do not match the network: {expected}"


def test_of_many_mismatches_some_are_named_and_the_rest_counted() -> None:
    model, shape, variables = network(TEXT, SIZE)
    theirs = convert.export_variables(model, shape, variables, "pytorchcv")
    with pytest.raises(InputError, match=f"and {len(variables) - convert.MAX_LISTED} more; not used: ") as error:
        convert.import_variables(model, shape, theirs, "akamaster").check("resnet20.th")
    text = str(error.value)
    assert len(text) < 1000
    assert "missing: conv1.weight [16, 3, 3, 3] for params/conv1/kernel" in text
    assert "not used: features.init_block.conv.weight [16, 3, 3, 3]" in text


def test_a_library_without_the_network_is_an_input_error() -> None:
    model, shape, variables = network(TEXT, SIZE)
    with pytest.raises(InputError, match="torchvision has no network of the family 'resnet_cifar'"):
        convert.export_variables(model, shape, variables, "torchvision")
    with pytest.raises(InputError, match="unknown library 'torchvison'; did you mean 'torchvision'"):
        convert.import_variables(model, shape, {}, "torchvison")
    with pytest.raises(InputError, match=r"unknown library 'torchvision'; .*valid: akamaster, own, pytorchcv"):
        export.to_state_dict(model, shape, variables, "torchvision")
    assert export.to_state_dict(model, shape, variables, "own") is variables


def test_names_of_densenets_of_2017_are_converted() -> None:
    model, shape, variables = network("densenet121(stage_sizes=(2, 2, 2, 2))", (64, 64))
    theirs = convert.export_variables(model, shape, variables, "torchvision")
    pattern = r"(?<=\d\.)(norm|conv)(?=\d\.)"
    older = {substitute(name, {pattern: "{}."}): array for name, array in theirs.items() if "num_batches" not in name}
    assert not older.keys() <= theirs.keys()
    back = convert.import_variables(model, shape, older, "torchvision").check("theirs")
    assert all(np.array_equal(back[path], array) for path, array in variables.items())


@pytest.mark.parametrize(("aux", "without", "size", "count"), [
    ("googlenet_torchvision_aux", "googlenet_torchvision", (64, 64), 18),
    pytest.param("inception_v3_aux", "inception_v3", (107, 128), 12, marks=pytest.mark.slow),
])  # fmt: skip
def test_auxiliary_classifiers_are_dropped_where_our_network_has_none(
    aux: str, without: str, size: tuple[int, int], count: int
) -> None:
    model, shape, variables = network(aux, size)
    theirs = convert.export_variables(model, shape, variables, "torchvision")
    found = convert.import_variables(create_model(without, 10), shape, theirs, "torchvision")
    assert len(found.dropped_auxiliary) == count
    assert all(re.match(r"aux\d|AuxLogits", name) for name in found.dropped_auxiliary)
    assert found.check("theirs").keys() == {path for path in variables if "/aux" not in path}


class Reader(pickle.Unpickler):
    """The part of PyTorch that loads a state dict."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        dtypes = {"FloatStorage": np.float32, "LongStorage": np.int64}
        known = {("torch._utils", "_rebuild_tensor_v2"): self.rebuild, ("collections", "OrderedDict"): dict}
        return {**known, **{("torch", name): dtype for name, dtype in dtypes.items()}}[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, device, count = pid
        assert (kind, device) == ("storage", "cpu")
        numbers = np.frombuffer(self.archive.read(f"{self.folder}/data/{key}"), dtype)
        assert len(numbers) == count
        return numbers

    @staticmethod
    def rebuild(storage: Any, offset: int, shape: Any, strides: Any, grad: bool, hooks: dict) -> np.ndarray:
        assert (grad, hooks) == (False, {})
        bytes_ = tuple(storage.itemsize * stride for stride in strides)
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, bytes_)


def test_files_hold_what_was_written(tmp_path: pathlib.Path) -> None:
    """A transposed array, one of no dimension and one without numbers among it."""
    arrays = {
        "conv.weight": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32).transpose(3, 2, 0, 1),
        "bn.num_batches_tracked": np.array(3),
        "empty": np.zeros((0, 4), np.float32),
        "größe": np.arange(300, dtype=np.float32),
    }
    export.write(tmp_path / "a.safetensors", arrays)
    export.write(tmp_path / "a.v1.pth", arrays)
    with zipfile.ZipFile(tmp_path / "a.v1.pth") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist()[0] == "a/data.pkl"
        torch = Reader(archive, "a").load()
    for found in (load_file(tmp_path / "a.safetensors"), torch):
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert np.array_equal(found[name], array)
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "a.v1.pth"}


def test_a_path_that_cannot_be_written_is_an_input_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"unknown suffix '.h5'; .*valid: .pt, .pth, .safetensors"):
        export.write(tmp_path / "a.h5", {})
    with pytest.raises(InputError, match=r"/no/a.pth cannot be written: No such file"):
        export.write(tmp_path / "no" / "a.pth", {})
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(InputError, match=r"/b.safetensors cannot be written: Is a directory"):
        export.write(tmp_path / "b.safetensors", {"a": np.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]
