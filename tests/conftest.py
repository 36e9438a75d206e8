"""What holds for every test: eight fake CPU devices, no network, and nothing of the user's own files."""

import gc
import hashlib
import http.server
import os
import pathlib
import random
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

# The same examples in every run, and no folder of found ones: a test that fails here fails everywhere.
hypothesis.settings.register_profile("tests", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("tests")

# The first process of a test run makes the folder; pytest-xdist's workers inherit the variables.
_OWNER = "CNNJAX_TEST_HOME" not in os.environ
_HOME = pathlib.Path(os.environ.get("CNNJAX_TEST_HOME") or tempfile.mkdtemp(prefix="cnnjax-tests-"))
os.environ.update(
    CNNJAX_TEST_HOME=str(_HOME),
    HOME=str(_HOME),
    XDG_CACHE_HOME=str(_HOME / "cache"),
    XDG_CONFIG_HOME=str(_HOME / "config"),
    XDG_DATA_HOME=str(_HOME / "data"),
    TFDS_DATA_DIR=str(_HOME / "tensorflow_datasets"),
    JAX_PLATFORMS=os.environ.get("JAX_PLATFORMS", "cpu"),
    JAX_NUM_CPU_DEVICES="8",
    JAX_NUMPY_RANK_PROMOTION="raise",  # a broadcast between ranks is more often a mistake than meant
    JAX_COMPILATION_CACHE_DIR=str(_HOME / "cache" / "jax"),  # one for all workers
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.2",
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY="true",
    MPLBACKEND="agg",
    PYTHONSAFEPATH="1",  # as launch.sh sets it: a process that a test starts finds no module in the current folder
)
if os.environ["JAX_PLATFORMS"] == "cpu" and "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    # Most of the time of a small test is compilation, which without LLVM's optimizations takes a fifth of the time.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
for _name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "CNNJAX_COMMAND", "COLUMNS"):
    os.environ.pop(_name, None)
gc.set_threshold(100_000, 50, 100)  # tracing makes millions of objects, and Python's collector looks at all of them
if "jax" in sys.modules:
    raise pytest.UsageError("jax was imported before tests/conftest.py could set its devices")

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
_LOCAL = ("localhost", "127.", "::1", "0.0.0.0", "::")


def _check_local(host: object) -> None:
    host = host.decode() if isinstance(host, bytes) else host
    if isinstance(host, str) and host and not host.startswith(_LOCAL) and host != socket.gethostname():
        raise ConnectionError(f"a test wanted to reach {host}; the tests use no network")


def _refuse_network() -> None:
    def connect(self, address):
        if isinstance(address, tuple):
            _check_local(address[0])
        return _connect(self, address)

    def connect_ex(self, address):
        if isinstance(address, tuple):
            _check_local(address[0])
        return _connect_ex(self, address)

    def getaddrinfo(host, *args, **kwargs):
        _check_local(host)
        return _getaddrinfo(host, *args, **kwargs)

    socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
    socket.getaddrinfo = getaddrinfo


_refuse_network()
os.fsync = lambda descriptor: None  # no test loses power, and flushing to a busy disk takes longer than most tests


def pytest_unconfigure() -> None:
    if _OWNER:
        shutil.rmtree(_HOME, ignore_errors=True)


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With CNNJAX_PART=K/N, of the tests marked `zoo` only every N-th from the K-th on, counted from 0.

    With CNNJAX_SHARE=K/N, of all tests.
    """
    for name, marker in (("CNNJAX_PART", "zoo"), ("CNNJAX_SHARE", "")):
        part, parts = map(int, os.environ.get(name, "0/1").split("/"))
        counted = [item for item in items if not marker or item.get_closest_marker(marker)]
        left_out = {id(item) for i, item in enumerate(counted) if i % parts != part % parts}
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
        items[:] = [item for item in items if id(item) not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _one_device_unless_a_test_asks_for_more() -> Iterator[None]:
    """Makes one device the default mesh, not all eight: programs for eight compile and run several times longer."""
    import jax

    from cnnjax.distributed import sharding

    make_mesh = sharding.make_mesh

    def make(devices: Any = None, text: str = "") -> Any:
        return make_mesh(jax.devices()[:1] if devices is None and not text else devices, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", make)
        yield


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference material beside the repository; tests that need it are skipped where it is absent."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the reference material in ../shared, which is not here")
    return folder


@pytest.fixture(scope="session")
def digits_dir() -> str:
    """A folder of data sets with the digits in it."""
    from cnnjax.data import build

    build.build("digits", data_dir=os.environ["TFDS_DATA_DIR"], log=lambda line: None)
    return os.environ["TFDS_DATA_DIR"]


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; may ignore Range, or hang up after `cut` bytes."""

    content, ranges, cut, requests, url, digest = b"", True, 0, list[str | None](), "", ""

    def do_GET(self) -> None:
        start = 0
        wanted = self.headers.get("Range")
        type(self).requests.append(wanted)
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.content):
                self.send_error(416)
                return
            self.send_response(206)
        elif self.path == "/missing":
            self.send_error(404)
            return
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.cut] if self.cut else self.content[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Server]]:
    class Mine(Server):
        content, requests = random.Random(0).randbytes(3_000_000), []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        Mine.url = f"http://127.0.0.1:{running.server_port}/file"
        Mine.digest = f"md5:{hashlib.md5(Mine.content).hexdigest()}"
        yield Mine
        running.shutdown()
        thread.join()
