"""Every network against independent implementations: the same weights give the same numbers.

`./launch.sh test -m slow tests/parity` compares all, with PyTorch and the libraries of .ci/references.txt; with
CNNJAX_PART=K/N only every N-th comparison from the K-th on. The fast tests only check that nothing was forgotten.
"""

import importlib
import importlib.util
import pathlib
from typing import Any

import pytest

from cnnjax import spec
from cnnjax.models import MODELS
from tests.parity import harness

FILES = (path.stem for path in sorted(pathlib.Path(__file__).parent.glob("*.py")))
GROUPS = [
    importlib.import_module(f"tests.parity.{name}")
    for name in FILES
    if not (name.startswith("test_") or name.endswith("harness"))
]

ALONE: dict[str, str] = {name: check for group in GROUPS for name, check in group.ALONE.items()}
COMPARED: list[tuple[Any, harness.Reference, tuple[int, int]]] = [
    (harness.compare, row, size) for group in GROUPS for row in group.ROWS for size in row.sizes
]


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize(
    ("compare", "row", "size"),
    COMPARED,
    ids=lambda value: f"{value.ours}-{value.source}" if isinstance(value, harness.Reference) else None,
)
def test_the_same_weights_give_the_same_numbers(compare: Any, row: harness.Reference, size: tuple[int, int]) -> None:
    pytest.importorskip(row.source.split(" ")[0], reason="a reference is not installed: see .ci/references.txt")
    for worst, limit in zip(compare(row, size), harness.LIMITS.values(), strict=True):
        print({what: f"{error:.1e}" for what, error in worst.items()})
        assert {what: error for what, error in worst.items() if not error <= limit} == {}


def test_every_network_has_a_reference_or_says_what_it_has_instead() -> None:
    compared = {spec.parse(row.ours).name for _, row, _ in COMPARED}
    missing = MODELS.keys() - compared - ALONE.keys()
    same = {name for name in missing if any(MODELS[name].build == MODELS[other].build for other in compared)}
    assert missing - same == set()
    assert ALONE.keys() <= MODELS.keys()


def test_references_are_compared_at_two_sizes_and_one_is_odd() -> None:
    for _, row, _ in COMPARED:
        assert len(set(row.sizes)) >= 2, row.ours
        assert any(side % 2 for size in row.sizes for side in size), row.ours
