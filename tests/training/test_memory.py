"""A training that cannot fit into memory is refused before anything is allocated."""

import pathlib
from typing import Any

import pytest
import tiny

from cnnjax.errors import InputError
from cnnjax.training import memory
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import make_setup


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "mlp(features=(1000000000,))"}, "GB and a batch of 4.1e-06 GB"),
        ({"batch_size": 2_000_000_000}, "a state of 9.68e-06 GB and a batch of 512 GB"),
        ({"batch_size": 2_000_000_000, "grad_accum_steps": 4}, "and a batch of 512 GB"),  # it is augmented as a whole
    ],
)
def test_what_cannot_fit_is_refused_with_its_size(
    changes: dict[str, Any], named: str, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_device_memory", lambda device: 24_000_000_000)
    with pytest.raises(InputError) as error:
        make_setup(parse_recipe(tiny.config(**changes)), data_dir=digits_dir, mesh=tiny.mesh(), log=print)
    assert named in str(error.value)
    assert "do not fit into 1 x 24 GB of memory; choose a smaller network or batch_size" in str(error.value)


def test_where_the_memory_is_not_known_nothing_is_refused(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory._device_memory(tiny.mesh().devices.flat[0]) > 0
    monkeypatch.setattr(memory, "_device_memory", lambda device: 0)
    make_setup(parse_recipe(tiny.config()), data_dir=digits_dir, mesh=tiny.mesh(), log=print)
