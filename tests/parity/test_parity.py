"""Every network against independent implementations: the same weights give the same numbers.

`./launch.sh test -m slow tests/parity` compares all, with PyTorch, Keras and the libraries of .ci/references.txt; with
CNNJAX_PART=K/N only every N-th comparison from the K-th on. The fast tests only check that nothing was forgotten.
"""

import importlib
import importlib.util
import json
import pathlib

import pytest

from cnnjax import spec
from cnnjax.models import MODELS
from tests.parity import harness, keras_harness

FILES = (path.stem for path in sorted(pathlib.Path(__file__).parent.glob("*.py")))
GROUPS = [
    importlib.import_module(f"tests.parity.{name}")
    for name in FILES
    if not (name.startswith("test_") or name.endswith("harness"))
]

ALONE: dict[str, str] = {name: check for group in GROUPS for name, check in group.ALONE.items()}
Row = harness.Reference | keras_harness.KerasReference
COMPARED: list[tuple[Row, tuple[int, int]]] = [
    (row, size) for group in GROUPS for row in group.ROWS for size in row.sizes
]


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize(
    ("row", "size"), COMPARED, ids=lambda value: f"{value.ours}-{value.source}" if isinstance(value, Row) else None
)
def test_the_same_weights_give_the_same_numbers(row: Row, size: tuple[int, int]) -> None:
    library = row.source.split(" ")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: see .ci/references.txt")
    if isinstance(row, keras_harness.KerasReference):
        differences = keras_harness.compare(row, size)
    else:
        differences = harness.compare(row, size)
    for worst in differences:
        print({what: f"{error:.1e}" for what, error in worst.items()}, f"limit {worst.limit:.0e}")
        assert {what: error for what, error in worst.items() if not error <= worst.limit} == {}


def test_every_network_has_a_reference_or_says_what_it_has_instead() -> None:
    compared = {spec.parse(row.ours).name for row, _ in COMPARED}
    missing = MODELS.keys() - compared - ALONE.keys()
    networks = [(MODELS[name].network, MODELS[name].fields) for name in compared]
    same = {name for name in missing if (MODELS[name].network, MODELS[name].fields) in networks}
    assert missing - same == set()
    assert ALONE.keys() <= MODELS.keys()


def test_the_published_numbers_are_those_of_the_reference_tables(shared: pathlib.Path) -> None:
    """architectures.json, by which all networks are tested, against the tables that it was made of."""
    facts = json.loads((pathlib.Path(__file__).parents[1] / "architectures.json").read_text())
    tables = json.loads((shared / "reference" / "architectures.json").read_text())
    tables = {name: row for name, row in tables.items() if not name.startswith("dcgan")}  # generates images
    maps = {name: entry for group in GROUPS for name, entry in group.PUBLISHED.items()}
    assert facts.keys() == maps.keys() == tables.keys()
    for name, row in tables.items():
        fact, (text, ends) = facts[name], maps[name]
        params = row["params"]
        if "aux" in text:
            params = row["params_total_with_aux"]
        elif "params_without_aux" in row:
            params = row["params_without_aux"]
        expected = {"model": text, "params": params, "state": row["state"]}
        if "macs" in row:
            expected["macs"] = row["macs"]
        if row.get("receptive_field_last_conv"):
            expected["field"] = row["receptive_field_last_conv"][0]
        assert {key: fact[key] for key in expected} == expected, name
        assert sorted(fact["input"]) == sorted([*row["input"], 1][:3]), name
        shapes = {ends[stage]: shape for stage, shape in row.get("stage_shapes", []) if stage in ends}
        assert fact["ends"] == {end: [*shape[1:], shape[0]] for end, shape in shapes.items() if len(shape) == 3}, name


def test_sources_begin_with_the_name_of_a_library() -> None:
    libraries = {"torch", "torchvision", "timm", "pytorchcv", "keras"}
    assert {row.source.split(" ")[0] for row, _ in COMPARED} == libraries


def test_references_are_compared_at_two_sizes_and_one_is_odd() -> None:
    for row, _ in COMPARED:
        assert len(set(row.sizes)) >= 2, row.ours
        assert any(side % 2 for size in row.sizes for side in size), row.ours
