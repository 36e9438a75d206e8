"""Exported networks: a program that runs without our code and gives the network's logits, and weights for others."""

import json
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.interpreters.mlir import make_ir_context
from jaxlib.mlir import ir

from cnnjax import export, pretrained, summarize
from cnnjax.errors import InputError
from cnnjax.models import MODELS
from cnnjax.pretrained import export as state_dicts
from cnnjax.pretrained import files
from tests.exported import images_of, logits, network

# Networks with each kind of layer between them, and images that they take.
NETWORKS = {
    "average pools, batch normalization": ('lenet5(pool="average", norm="batch")', (28, 28, 1)),
    "max pools, spatial logits": ('lenet5(head="conv")', (30, 28, 1)),
    "grouped convolutions": ("resnet50(small_images=True, stage_sizes=(1,), groups=4, width=8)", (8, 8, 3)),
    "squeeze-and-excitation, group normalization": (
        'resnet18(small_images=True, se=16, stage_sizes=(1, 1), norm="group")',
        (8, 8, 3),
    ),
    "loops": ("cifar_resnet20(scan=True)", (8, 8, 3)),
    "a table of connections": ("lenet5_1998", (32, 32, 1)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_program_gives_the_networks_logits_for_any_batch(kind: str) -> None:
    trained = network(*NETWORKS[kind])
    program = export.export_program(trained, "last", print)
    shape = tuple(program.facts["input"]["shape"][1:])
    exported = jax.export.deserialize(bytearray(program.serialized))
    assert "ffi" not in exported.mlir_module()  # nothing of ours is called
    assert "onednn" not in exported.mlir_module()
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")
    images = images_of(3, shape)
    expected = np.asarray(logits(trained, images))
    tolerance = 1e-5 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(exported.call(images), expected, atol=tolerance, rtol=1e-5)
    np.testing.assert_allclose(exported.call(images[:1]), expected[:1], atol=tolerance, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", MODELS)
def test_every_network_can_be_exported(name: str) -> None:
    """With weights that are all zero, which take no room in the program."""
    trained = network(name, MODELS[name].input_shape, zeros=True)
    program = export.export_program(trained, "last", print)
    assert jax.export.deserialize(bytearray(program.serialized)).out_avals[0].shape[1] == 10


def test_what_is_done_in_the_step_is_in_the_program_and_what_comes_before_is_named() -> None:
    trained = network("mlp", (28, 28, 1), preprocess="resize(32)|center_crop(28)|pad_crop(0)", normalize="mean_std")
    program = export.export_program(trained, "last", print)
    facts = program.facts
    assert facts["before"] == "resize(32)|center_crop(28)"
    assert facts["input"] == {"dtype": "uint8", "shape": ["b", 28, 28, 1], "channels": "gray"}
    assert (facts["step"], facts["classes"]) == (7, list("abcdefghij"))
    images = images_of(2, (28, 28, 1))
    called = jax.export.deserialize(bytearray(program.serialized)).call(images)
    np.testing.assert_allclose(called, logits(trained, images), atol=1e-5)


def test_the_size_of_the_images_may_be_given() -> None:
    trained = network('lenet5(head="gap")', (28, 28, 1))
    facts = export.export_program(trained, "last", print, (40, 36, 1)).facts
    assert facts["input"]["shape"] == ["b", 40, 36, 1]
    with pytest.raises(InputError, match=r"does not take images of \(20, 20, 1\)"):
        export.export_program(trained, "last", print, (20, 20, 1))


def test_the_file_runs_in_a_process_that_does_not_know_us(tmp_path: pathlib.Path) -> None:
    trained = network("lenet5", (28, 28, 1))
    files = export.write(trained, tmp_path / "lenet.stablehlo", log=lambda line: None)
    assert [file.name for file in files] == ["lenet.stablehlo", "lenet.stablehlo.json"]
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in files}
    assert json.loads(files[1].read_text())["output"] == {"dtype": "float32", "shape": ["b", 10], "of": "logits"}
    code = """if True:
        import sys
        sys.modules["cnnjax"] = None  # importing it fails
        import jax, numpy as np
        exported = jax.export.deserialize(bytearray(open("lenet.stablehlo", "rb").read()))
        images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
        np.save("logits.npy", exported.call(images))
    """
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = logits(trained, images_of(5, (28, 28, 1)))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("case", ["average pools, batch normalization", "grouped convolutions"])
def test_the_text_has_each_layer_and_no_weights(case: str, tmp_path: pathlib.Path) -> None:
    model, shape = NETWORKS[case]
    trained = network(model, shape)
    (path,) = export.write(trained, tmp_path / "net.mlir", log=lambda line: None)
    text = path.read_text()
    rows = summarize.layers(trained.model, shape)
    kinds = {"stablehlo.convolution(": "convolution", "stablehlo.dot_general ": "fully connected"}
    for operation, kind in kinds.items():
        assert text.count(operation) == sum(row.kind == kind for row in rows), operation
    assert f"tensor<1x{'x'.join(map(str, shape))}xui8>" in text
    assert "custom_call" not in text
    assert len(text) < 2000 * len(rows)
    with make_ir_context():
        assert ir.Module.parse(text).operation.verify()


@pytest.mark.parametrize("suffix", state_dicts.WRITERS)
def test_weights_are_in_the_names_of_a_library_or_in_ours(suffix: str, tmp_path: pathlib.Path) -> None:
    from safetensors.numpy import load_file

    trained = network("resnet18(small_images=True, stage_sizes=(1, 1))", (8, 8, 3))
    said: list[str] = []
    (path,) = export.write(trained, tmp_path / f"net{suffix}", log=said.append)
    assert "in the names of torchvision" in said[0]
    assert path.stat().st_size > 1000
    if suffix == ".safetensors":
        assert load_file(path)["conv1.weight"].shape == (64, 3, 3, 3)
        export.write(trained, path, names="own", log=print)
        assert load_file(path)["params/conv1/kernel"].shape == (3, 3, 3, 64)


def test_a_network_with_loops_has_our_names_and_is_read_back(tmp_path: pathlib.Path) -> None:
    trained = network("cifar_resnet20(depth=14, scan=True)", (8, 8, 3), normalize="none")
    (path,) = export.write(trained, tmp_path / "net.safetensors", log=lambda line: None)
    images = images_of(2, (8, 8, 3))
    np.testing.assert_array_equal(logits(pretrained.load(path), images), logits(trained, images))
    with pytest.raises(InputError, match="unknown library 'timm'; valid: own"):
        export.write(trained, path, names="timm")
    with pytest.raises(InputError, match="has no network with scan=True, whose loops stack layers; expected scan=Fal"):
        files.match(trained.model, (8, 8, 3), files.WeightSet("torch", {"conv1.weight": np.zeros((16, 3, 3, 3))}))


# A file's name and the options, and what is said.
WRONG = {
    "suffix": ("net.onx", {}, "unknown format '.onx'; supported: .stablehlo, .onnx, "),
    "folder": ("no/net.pth", {}, "does not exist"),
    "names": ("net.stablehlo", {"names": "timm"}, "--names=timm is only for weight files"),
    "size": ("net.pth", {"shape": (8, 8, 3)}, "--input is only for .stablehlo"),
    "library": ("net.pth", {"names": "torchvision"}, "unknown library 'torchvision'; valid: own"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_said_and_nothing_is_there(case: str, tmp_path: pathlib.Path) -> None:
    name, options, said = WRONG[case]
    with pytest.raises(InputError) as error:
        export.write(network("lenet5", (28, 28, 1)), tmp_path / name, **options)
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".stablehlo", ".onnx", ".html"])
def test_a_network_that_counts_its_images_is_told_what_to_write(tmp_path: pathlib.Path, suffix: str) -> None:
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            return nn.Dense(10)(images.reshape(len(images), -1))

    trained = network("mlp(features=(5,))", (8, 8, 1), zeros=True).replace(model=Counting())
    with pytest.raises(InputError, match=r"write images\.shape\[0\] in place of len\(images\)"):
        export.write(trained, tmp_path / f"net{suffix}")
