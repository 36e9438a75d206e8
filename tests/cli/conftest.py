import pathlib

import pytest

from cnnjax import cli


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the folder of a finished run of four steps, with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("run") / "finished"
    overrides = {
        "val_split": "",
        "model": "mlp(features=(8,))",
        "duration": "4 steps",
        "checkpoint_every": "2 steps",
    }
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    assert cli.main(["train", "--config=configs/digits_lenet5.py", *flags, f"--workdir={folder}"]) == 0
    return folder
