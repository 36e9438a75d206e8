import os
from collections.abc import Iterator

import jax
import pytest

from cnnjax.bench import measure, peer


@pytest.fixture(autouse=True)
def _restored_cache() -> Iterator[None]:
    """Restores JAX's compilation cache, which `cnnjax bench` turns off."""
    before = jax.config.values["jax_compilation_cache_dir"]
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens blocks and pauses, and makes up the machine's peaks."""
    monkeypatch.setattr(measure, "BLOCK", 0.005)
    monkeypatch.setattr(measure, "peaks", lambda dtype: measure.Peaks(1e9, 1e9))
    monkeypatch.setattr(peer, "SETTLE_SECONDS", 0.0)


@pytest.fixture(scope="session")
def torch_python() -> str:
    if not (python := os.environ.get("CNNJAX_TORCH_PYTHON")):
        pytest.skip("needs CNNJAX_TORCH_PYTHON, the path of a Python that has torch, torchvision, timm and pytorchcv")
    return python
