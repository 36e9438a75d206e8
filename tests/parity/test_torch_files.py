"""Our reader of PyTorch's files against PyTorch's own."""

import pathlib

import numpy as np
import pytest

from cnnjax.pretrained import formats
from tests.parity.harness import torch_module

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
NEW_DTYPES = ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32")


@pytest.mark.slow
@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path: pathlib.Path, new: bool) -> None:
    pytest.importorskip("torch")
    torch = torch_module()
    base = torch.randn(6, 8, 10)
    state = {name: (10 * torch.randn(2, 3, 4)).to(getattr(torch, name)) for name in DTYPES}
    state |= {"turned": base.permute(2, 0, 1), "part": base[1:4, ::2, 3:], "expanded": base[0, 0, :1].expand(7)}
    state |= {"scalar": torch.tensor(3), "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base[0])}
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state |= net.state_dict()
    path = tmp_path / "x.pth"
    for saved in (state, {"epoch": 2, "state_dict": state}, {"model": net.state_dict(keep_vars=True)}):
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        theirs = torch.load(path, weights_only=True)
        theirs = theirs.get("state_dict", theirs.get("model", theirs))
        kind, ours = formats.read(path)
        assert (kind, [*ours]) == ("torch", [*theirs])
        for name, tensor in theirs.items():
            assert (ours[name].shape, ours[name].dtype.name) == (tuple(tensor.shape), str(tensor.dtype)[6:]), name
            np.testing.assert_array_equal(ours[name].astype(np.float64), tensor.detach().double().numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["new types", "whole", "scripted", "traced", "arrays of NumPy"])
def test_other_forms_are_read_as_torch_has_them(tmp_path: pathlib.Path, form: str) -> None:
    pytest.importorskip("torch")
    torch, path = torch_module(), tmp_path / "x.pt"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(torch.nn.BatchNorm2d(4))).eval()
    theirs = net.state_dict()
    match form:
        case "new types":
            theirs = {name: torch.arange(1, 5).float().to(getattr(torch, name)) for name in NEW_DTYPES}
            torch.save(theirs, path)
        case "whole":
            torch.save({"model": net, "epoch": 3}, path)
        case "scripted":
            torch.jit.script(net).save(str(path))
        case "traced":
            torch.jit.trace(net, torch.zeros(1, 3, 8, 8)).save(str(path))
        case _:
            torch.save({name: tensor.numpy() for name, tensor in theirs.items()}, path)
    ours = formats.read(path)[1]
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert (ours[name].shape, ours[name].dtype.name) == (tuple(tensor.shape), str(tensor.dtype)[6:]), name
        np.testing.assert_array_equal(ours[name].astype(np.float64), tensor.double().numpy())


@pytest.mark.slow
def test_real_weights_are_read_as_torch_reads_them(shared: pathlib.Path) -> None:
    pytest.importorskip("torch")
    path = shared / "weights" / "resnet20-12fca82f.th"
    theirs = torch_module().load(path, map_location="cpu", weights_only=True)["state_dict"]
    ours = formats.read(path)[1]
    assert [*ours] == [*theirs]
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.detach().numpy(), name)
