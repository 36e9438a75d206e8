"""Weight files with random damage, and hostile ones: read or refused in a line, within limits of time and memory."""

import json
import os
import pathlib
import pickle
import resource
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from tests.pretrained import hostile, test_caffe_files, test_keras_files, test_keras_hostile
from tests.pretrained.test_weight_files import FLOATS, PLAIN, as_stream, as_zip, ask, push, state_dict

pytestmark = pytest.mark.slow

OPTIONS = ask("argparse", "Namespace") + b")\x81" + push({"lr": 1, "path": ["a", 2.5, None]}) + b"b"
BESIDE = b"(" + push("state_dict") + PLAIN + push("args") + OPTIONS + b"d"
NUMPY = state_dict({"w": pickle.dumps(np.arange(4.0), 2)[2:-1]})
ARRAYS = {"w": np.ones((2, 3), np.float32), "b": np.ones(2, ml_dtypes.bfloat16), "e": np.zeros((0, 2), np.int64)}
VALID: dict[str, tuple[str, list[bytes]]] = {
    "torch, zip": (".pth", [as_zip(content, FLOATS) for content in (PLAIN, BESIDE, NUMPY)]),
    "torch, stream": (".pth", [as_stream(PLAIN, FLOATS), as_stream(BESIDE, FLOATS)]),
    "safetensors": (".safetensors", [safetensors.numpy.save(ARRAYS, {"format": "pt"})]),
    "caffe": (".caffemodel", [test_caffe_files.caffemodel(test_caffe_files.LAYERS, old) for old in (False, True)]),
    "keras": (".h5", [*test_keras_files.FORMS.values(), *test_keras_hostile.COMPRESSED.values()]),
}
EXAMPLES = {"torch, zip": 1000, "torch, stream": 1000, "safetensors": 600, "caffe": 600, "keras": 300}
NUMBERS = [bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f", *((2**power).to_bytes(8, "little") for power in (31, 40, 62))]

_place = st.floats(0, 1, exclude_max=True)
_bytes = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS))
_edit = st.tuples(st.sampled_from(["put", "put", "put", "insert", "cut", "copy", "end"]), _place, _place, _bytes)


def damaged(data: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    """Puts, inserts, cuts and copies bytes at places that are fractions of the length."""
    for kind, place, other, new in edits:
        at, other_at = int(place * len(data)), int(other * len(data))
        length = 1 + int(other**4 * len(data))  # mostly short
        match kind:
            case "put":
                data = data[:at] + new + data[at + len(new) :]
            case "insert":
                data = data[:at] + new + data[at:]
            case "cut":
                data = data[:at] + data[at + length :]
            case "copy":
                data = data[:at] + data[other_at : other_at + length] + data[at:]
            case "end":
                data = data[: max(at, 1)]
    return data


def check_message(text: str) -> None:
    assert len(text) < 1000
    assert text.count("\n") <= 1
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", VALID)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suffix, valid = VALID[name]
    path, counts = pathlib.Path(f"net{suffix}"), {"read": 0, "refused": 0}

    @settings(max_examples=EXAMPLES[name], deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(st.sampled_from(valid), st.lists(_edit, min_size=1, max_size=4))
    def read(data: bytes, edits: list[tuple[str, float, float, bytes]]) -> None:
        path.write_bytes(damaged(data, edits))
        start = hostile.cpu_seconds()
        try:
            arrays = formats.read(path)[1]
            counts["read"] += 1
        except InputError as error:
            counts["refused"] += 1
            check_message(str(error))
        else:
            assert sum(array.nbytes for array in arrays.values()) <= 100 * len(data)
        assert hostile.cpu_seconds() - start < hostile.MAX_SECONDS

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read()
    print(name, counts)
    assert sum(counts.values()) >= 0.9 * EXAMPLES[name]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
    assert os.listdir() == [path.name]


def test_no_hostile_file_does_more_than_be_refused(tmp_path: pathlib.Path) -> None:
    for folder in ("files", "work", "tmp"):
        (tmp_path / folder).mkdir()
    count = 0
    for name, data in hostile.files():
        (tmp_path / "files" / name).write_bytes(data)
        count += 1
    root = str(pathlib.Path(__file__).parents[2])
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "tests.pretrained.hostile", str(tmp_path / "files")],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert (process.returncode, len(rows)) == (0, count), process.stderr[-2000:]
    assert count >= 200
    assert [row for row in rows if row[1] == "fault"] == []
    assert max(rows, key=lambda row: row[2])[2] < hostile.MAX_SECONDS
    for name, outcome, _, text in rows:
        check_message(text if outcome == "refused" else "")
        assert "crashed" not in text or name == "random.h5"
    print({outcome: sum(row[1] == outcome for row in rows) for outcome in ("read", "refused")})
    assert list((tmp_path / "work").iterdir()) + list((tmp_path / "tmp").iterdir()) == []
