"""Pickles that cannot run code."""

import functools
import os
import pickle

import numpy as np
import pytest

from cnnjax.data import safe_pickle
from cnnjax.data.build import build
from cnnjax.errors import InputError
from tests.data.original_files import PY, silent, write_cifar


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("call", [os.mkdir, eval, functools.partial], ids=lambda call: call.__name__)
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, call, protocol):
    write_cifar(tmp_path / "raw", "cifar10", "py")
    mark = tmp_path / "mark"
    args = {os.mkdir: (str(mark),), eval: (f"__import__('os').mkdir({str(mark)!r})",)}.get(call, (os.mkdir, str(mark)))
    batch = {b"data": Evil(call, *args), b"labels": [0]}
    (tmp_path / "raw" / PY / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(InputError, match="test_batch: refused to unpickle"):
        build("cifar10", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_safe_pickles_come_back(protocol):
    batch = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2], b"batch_label": b"\x80 x"}
    got = safe_pickle.loads(pickle.dumps(batch, protocol=protocol))
    np.testing.assert_array_equal(got.pop(b"data"), batch.pop(b"data"))
    assert got == batch


def test_the_pickles_of_old_numpy_come_back():
    data = pickle.dumps({b"data": np.ones((2, 2), np.uint8)}, protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    np.testing.assert_array_equal(safe_pickle.loads(old)[b"data"], np.ones((2, 2)))
