import pathlib

import pytest

from tests import tiny

MODEL = "sequential(layers='conv(6, 5, padding=1)|relu|max_pool(2)|conv(8, 3)|relu|gap|dense')"


@pytest.fixture(scope="session")
def conv_run(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> pathlib.Path:
    """Returns the folder of a run of a small convolutional network on digits, with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("visualize") / "run"
    tiny.run(folder, digits_dir, model=MODEL, duration="4 steps")
    return folder
