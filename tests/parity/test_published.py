"""The catalogue's rows of torchvision and timm: files that these libraries save are networks with their logits."""

import dataclasses
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import pretrained
from cnnjax.distributed import sharding
from cnnjax.pretrained import catalog
from tests.parity.harness import torch_models, torch_module

ROWS = {
    (row.library, row.model): row
    for row in catalog.rows().values()
    if row.name.startswith(("torchvision:", "timm:")) and row.params < 1.5e8
}


def theirs(row: catalog.PublishedWeights) -> Any:
    """The network of a row, made by its library, with random weights and statistics."""
    torch = torch_module()
    library, own = row.name.split(":")
    arch, models = own.split(".")[0], torch_models(library)
    torch.manual_seed(0)
    if library == "timm":
        net = models.create_model(arch)
    elif arch in ("googlenet", "inception_v3"):  # these weights come with transform_input, which normalises anew
        net = getattr(models, arch)(transform_input=True, init_weights=False)
    else:
        net = getattr(models, arch)()
    for module in net.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
    return net.eval()


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("key", ROWS, ids=lambda key: ROWS[key].name)
def test_what_a_library_saves_is_our_network_with_its_logits(
    key: tuple[str, str], tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    row = ROWS[key]
    if importlib.util.find_spec(row.name.split(":")[0]) is None:
        pytest.skip("its library is not installed: see .ci/references.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch, net = torch_module(), theirs(row)
    row = dataclasses.replace(row, digest="", url="http://127.0.0.1:9/file.pth")
    monkeypatch.setattr(catalog, "find", lambda name: row)
    row.path.parent.mkdir(parents=True)
    torch.save(net.state_dict(), row.path)

    network, mesh = pretrained.load(row.name), sharding.make_mesh(jax.devices()[:1])
    variables = network.load_variables(mesh, "last", lambda line: None).variables
    images = np.random.default_rng(0).uniform(size=(2, *network.data.shape)).astype(np.float32)
    mean, std = (np.array(network.data.statistics[name], np.float32) for name in ("mean", "std"))
    seen = (images - mean) / std if network.config.normalize == "imagenet" else 2 * images - 1
    shown = (images - mean) / std if row.library == "torchvision" else seen  # before its transform_input
    with torch.no_grad():
        expected = net(torch.from_numpy(shown.transpose(0, 3, 1, 2).copy())).numpy()
    got: Any = jax.jit(lambda variables, x: network.model.apply(variables, x, train=False))(variables, seen)
    assert np.abs(np.asarray(got) - expected).max() <= 1e-4 * np.abs(expected).max()
