"""Weight files that want more than to be read: to run code, to take memory or time, to read other files.

Run as `python -m tests.pretrained.hostile FOLDER`, it reads every file of a folder within limits of memory and time,
and prints what came of each as a line of JSON: [name, outcome, seconds, message].
"""

import io
import itertools
import json
import os
import pathlib
import pickle
import platform
import resource
import signal
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from cnnjax.pretrained.formats import caffe
from tests.pretrained.test_weight_files import FLOATS, PLAIN, as_stream, as_zip, ask, evil, push, state_dict, tensor

MARK = "mark-of-code-that-ran"
MAX_BYTES, MAX_SECONDS = 2 << 30, 10
Files = Iterator[tuple[str, bytes]]

CALLS = {
    "system": evil(os.system, f"mkdir {MARK}"),
    "mkdir": evil(os.mkdir, MARK, protocol=4),
    "exec": ask("builtins", "exec") + b"(" + push(f"open({MARK!r}, 'w')") + b"tR",
    "build": ask("os", "mkdir") + b")R" + push({"__setstate__": 1, "__reduce__": 2}) + b"b",
    "chain": ask("builtins", "getattr") + b"(" + ask("builtins", "__import__") + b"(" + push("os") + b"tR"
    + push("mkdir") + b"tR(" + push(MARK) + b"tR",
    "load_from_bytes": ask("torch.storage", "_load_from_bytes") + b"(" + push(evil(os.mkdir, MARK) + b".") + b"tR",
    "numpy_load": ask("numpy", "load") + b"(" + push("/etc/passwd") + b"tR",
    "objects": ask("numpy", "ndarray") + b"(K\2\x85" + ask("numpy", "dtype") + b"(" + push("O") + b"tR"
    + push(b"A" * 16) + b"tR",
    "laughs": b")" + b"2\x86" * 60,
    "nested": b"]" * 50_000 + b"a" * 49_999,
    "calls": ask("os", "mkdir") + b")R" * 50_000,
    "itself": b"]\x94h\0a",
    "memo": b"Nr\xff\xff\xff\xff",
    "large": b"](" + b"K\1" * 300_000 + b"e",
    "digits": b"L" + b"9" * 200_000 + b"L\n",
    "text": b"X\xff\xff\xff\x7fabc",
    "bytes": b"\x8e" + b"\xff" * 7 + b"\x7fabc",
    "operations": b"]" * 2_500_000,
}  # fmt: skip
PLACES = {
    "alone": lambda code: code,
    "beside": lambda code: b"(" + push("state_dict") + PLAIN + push("args") + code + b"d",
    "tensor": lambda code: state_dict({"w": code}),
    "key": lambda code: b"}" + code + PLAIN + b"s",
    "shape": lambda code: state_dict({"w": tensor("7", "Float", 12, 0, (2,), (1,)).replace(push((2,)), code, 1)}),
}


def pickles() -> Files:
    """Every call in every place of both forms of PyTorch's files."""
    for (call, code), (place, put) in itertools.product(CALLS.items(), PLACES.items()):
        if call == "operations" and place != "alone":
            continue  # each takes two seconds
        content = put(code)
        for form, write in (("zip", as_zip), ("stream", as_stream)):
            yield f"{call}-{place}-{form}.pth", write(content, FLOATS if b"Float" in content else {})
    large, zeros = tensor("7", "Float", 2**40, 0, (2**40,), (1,)), tensor("7", "Float", 12, 0, (2**30, 2**30), (0, 0))
    yield "huge.pth", as_zip(state_dict({"w": large, "v": zeros}), FLOATS)
    many = {f"w{i}": tensor("7", "Float", 10**6, 0, (10**6,), (1,)) for i in range(2000)}
    yield "shared.pth", as_zip(state_dict(many), {"7": np.zeros(10**6, np.float32)})
    # Each of 60 dicts has the one before it under 200 keys.
    inner = [b"".join(push(f"k{key}") + b"h" + bytes([number]) for key in range(200)) for number in range(60)]
    yield "dicts-of-dicts.pth", as_zip(b"}\x94" + b"".join(b"}\x94(" + items + b"u" for items in inner), {})


def zips() -> Files:
    """Archives that lie about sizes or unpack to much."""
    content = state_dict({"x": tensor("7", "Float", 10**8, 0, (10**8,), (1,))})
    zeros = {"7": np.zeros(10**8, np.float32)}
    yield "deflated.pth", as_zip(content, zeros, zipfile.ZIP_DEFLATED)
    plain = as_zip(PLAIN, FLOATS)
    for name, size in {"sizes": 48, "more": 2**31, "most": 2**32 - 2}.items():
        yield f"{name}.pth", plain.replace(struct.pack("<II", 48, 48), struct.pack("<II", size, size))
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(30_000):
            archive.writestr(f"a/{i}", b"")
        archive.writestr("a/data.pkl", b"}.")
    yield "members.pth", many.getvalue()
    yield "nested.keras", keras_zip(as_zip(PLAIN, FLOATS))
    yield "bomb.keras", keras_zip(bytes(300 << 20)).replace(struct.pack("<I", 300 << 20), struct.pack("<I", 4 << 29))
    yield "large.keras", keras_zip(bytes(300 << 20))
    yield "config.keras", keras_zip(b"", json.dumps([0] * 10).encode())
    yield "deep.keras", keras_zip(b"", b"[" * 10**6)
    yield "traversal.keras", keras_zip(b"", b"{}", "../../mark.h5")


def keras_zip(weights: bytes, config: bytes = b'{"config": {"layers": []}}', name: str = "model.weights.h5") -> bytes:
    """A .keras file. The zeros of a bomb are compressed in pieces."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", config)
        archive.writestr(name, weights)
    return out.getvalue()


def safetensors() -> Files:
    """Headers that lie."""
    row = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers: dict[str, Any] = {
        "shape": {"w": row | {"shape": [2**40, 2**40]}},
        "negative": {"w": row | {"shape": [-1, -2]}},
        "sides": {"w": row | {"shape": [1] * 1000}},
        "zero": {"w": row | {"shape": [0, 2**62], "data_offsets": [0, 0]}},
        "offsets": {"w": row | {"data_offsets": [8, 0]}},
        "beyond": {"w": row | {"data_offsets": [2**62, 2**62 + 8]}},
        "fractions": {"w": row | {"shape": [2.0]}},
        "overlap": {f"w{i}": row for i in range(1000)},
        "type": {"w": row | {"dtype": "F999" * 1000}},
        "objects": {"w": row | {"dtype": "O"}},
        "name": {"\x1b[2J\n" * 5000: row},
        "row": {"w": [row] * 5},
        "metadata": {"__metadata__": [1], "w": row},
        "list": [row],
        "number": 7,
    }
    for name, header in headers.items():
        encoded = json.dumps(header).encode()
        yield f"{name}.safetensors", struct.pack("<Q", len(encoded)) + encoded + bytes(8)
    for name, encoded in {"deep": b"[" * 10**6, "digits": b'{"w": ' + b"9" * 10**5, "nan": b'{"w": NaN}'}.items():
        yield f"{name}.safetensors", struct.pack("<Q", len(encoded)) + encoded
    for name, length in {"length": 2**40, "longest": 2**64 - 1}.items():
        yield f"{name}.safetensors", struct.pack("<Q", length) + b"{}"


def caffemodels() -> Files:
    """Messages of protobuf whose shapes and lengths lie."""
    net = caffe.net_parameter()
    shapes = {"large": [2**31, 2**31], "negative": [-2, -3], "overflow": [2**62] * 3, "sides": [1] * 100}
    for name, dim in shapes.items():
        blob = {"data": [bytes(24)], "shape": {"dim": dim}}
        yield f"{name}.caffemodel", net(layer=[{"name": "a", "blobs": [blob]}]).SerializeToString()
    yield "layers.caffemodel", b"\xa2\x06\x00" * 1_000_000
    yield "length.caffemodel", b"\xa2\x06" + b"\xff" * 9 + b"\x01"
    yield "groups.caffemodel", b"\x0b" * 10_000
    yield "names.caffemodel", b"\xa2\x06\x04\x0a\x02\xff\xfe"


def hdf5() -> Files:
    """The hostile files of test_keras_hostile, and random bytes behind HDF5's signature."""
    import h5py

    from tests.pretrained import test_keras_hostile

    for name, (write, _) in test_keras_hostile.HOSTILE.items():
        out = io.BytesIO()
        with h5py.File(out, "w") as file:
            write(file)
        yield f"{name.replace(' ', '-')}.h5", out.getvalue()
    yield "random.h5", b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(10_000)


def others() -> Files:
    """Files of no format."""
    yield "pickle.pth", pickle.dumps({"w": [1] * 1000})
    yield "zlib.gz", zlib.compress(bytes(10**6))
    yield "page.pth", b"<!DOCTYPE html><html>"
    yield "empty.pth", b""
    yield "one.pth", b"\x80"


def files() -> Files:
    """Yields the names and contents of all hostile files."""
    for kind in (pickles, zips, safetensors, caffemodels, hdf5, others):
        yield from kind()


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended: the wall's is others', too."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_all(folder: pathlib.Path) -> None:
    """Reads the files of a folder. What would run code, start a process or write a file ends this process."""
    events = ("os.system", "os.exec", "os.posix_spawn", "os.mkdir", "pickle.find_class", "subprocess.Popen")
    worker = str(pathlib.Path(formats.__file__).with_name("keras_worker.py"))
    temporary = os.environ["TMPDIR"]
    platform.processor()  # starts a process, which JAX would do later

    def forbid(event: str, arguments: tuple[Any, ...]) -> None:
        if event in events and worker not in str(arguments) and not str(arguments[0]).startswith(temporary):
            os.write(2, f"{event} {arguments}".encode())
            os._exit(9)

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt  # which no reader catches

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    addresses = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    signal.signal(signal.SIGPROF, stop)
    sys.addaudithook(forbid)
    for path in sorted(folder.iterdir()):
        start = cpu_seconds()
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        try:
            arrays = formats.read(path)[1]
            outcome, text = "read", f"{sum(array.nbytes for array in arrays.values())}"
        except InputError as error:
            outcome, text = "refused", str(error)
        except BaseException as error:
            outcome, text = "fault", repr(error)[:1000]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([path.name, outcome, round(cpu_seconds() - start, 2), text]), flush=True)


if __name__ == "__main__":
    read_all(pathlib.Path(sys.argv[1]))
