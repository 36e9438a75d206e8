"""Comparison with PyTorch: worker processes of another Python, which take turns with this one."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cnnjax import spec
from cnnjax.bench.measure import Run, steps_in_a_block
from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.data.pipeline import cores
from cnnjax.errors import InputError
from cnnjax.training.setup import Setup

WORKER = pathlib.Path(__file__).with_name("torch_worker.py")
# Environments of the workers on a CPU. OpenMP threads wait for the next loop either busily, which is faster on an
# otherwise idle machine, or asleep, which is much faster on a busy one. The faster of the two workers is the peer.
OPENMP_WAITING = ({}, {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"})
MAX_FILES = 10_000  # encoded images exported for a worker: enough for any block, and written in seconds
SETTLE_SECONDS = 0.25  # pause between turns, until busy threads of the other side sleep (Intel's after 0.2 s)
EXIT_SECONDS = 5
# Prefixes of our environment variables that would affect the other Python.
OUR_VARIABLES = ("PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "VIRTUAL_ENV", "GLIBC_TUNABLES")

Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Worker:
    """A process in which another Python runs `torch_worker.py`.

    Attributes:
        python: path of its interpreter.
        info: {"torch": version, "cuda": whether it has a GPU}.
        ask: sends a request and returns the answer; raises InputError for a failure that the worker reports.
    """

    python: str
    info: dict[str, Any]
    ask: Ask


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network or an input pipeline of PyTorch, to compare ours with.

    Attributes:
        run: function: number of steps to run in the worker -> their seconds.
        source: libraries and versions, as in 'torchvision 0.26, torch 2.11'.
    """

    run: Run
    source: str


@contextlib.contextmanager
def start_workers(python: str) -> Iterator[list[Worker]]:
    """Starts the workers, and ends them when the context exits.

    On a CPU there are two, with different settings of OpenMP (`OPENMP_WAITING`), else one. Raises InputError when
    `python` is not the path of a Python that has torch.
    """
    environments = OPENMP_WAITING if jax.default_backend() == "cpu" else OPENMP_WAITING[:1]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_start_worker(python, variables)) for variables in environments]


@contextlib.contextmanager
def _start_worker(python: str, variables: dict[str, str]) -> Iterator[Worker]:
    """Starts a worker with additional environment `variables`, and ends it when the context exits.

    Variables that would affect another Python (`OUR_VARIABLES`) are not passed on.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)} | variables
    with tempfile.TemporaryFile("w+", errors="replace") as stderr:
        try:
            process = subprocess.Popen(
                [python, str(WORKER)], env=environment, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"--vs={python}: {error.strerror}; expected the path of a Python that has torch"
            ) from error
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def read_answer() -> dict[str, Any]:
            line = answers.readline()
            try:
                answer = json.loads(line)
                if not isinstance(answer, dict):
                    raise ValueError
            except ValueError:
                stderr.seek(0)
                output = [text for text in stderr.read().splitlines() if text.strip()] or [line.strip() or "nothing"]
                raise InputError(
                    f"--vs={python} ended with {output[-1][:200]!r}; expected the path of a Python that has torch"
                ) from None
            if "error" in answer:
                raise InputError(f"--vs={python}: {answer['error']}")
            return answer

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            with contextlib.suppress(BrokenPipeError):  # it has died: read_answer raises with its last output
                print(json.dumps(request), file=requests, flush=True)
            return read_answer()

        try:
            yield Worker(python, read_answer(), ask)
        finally:
            with contextlib.suppress(BrokenPipeError):
                requests.close()
            try:
                process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            answers.close()


def export_data(folder: pathlib.Path, config: Config, data_dir: str) -> dict[str, Any]:
    """Writes a config's training split into `folder` for a worker, and returns the "data" of requests to build.

    Writes the decoded images as one array or, if they differ in size, the first `MAX_FILES` as encoded files.
    """
    examples = load(config.dataset, config.train_split, data_dir)
    indices = np.arange(len(examples))
    if None in examples.shape:
        encoded, labels = examples.read_encoded(indices[:MAX_FILES])
        for index, data in enumerate(encoded):
            (folder / str(index)).write_bytes(data)
    else:
        images, labels = examples.read(indices)
        np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    augment = [[call.name, call.args, call.kwargs] for call in spec.parse_pipeline(config.augment)]
    return {"folder": str(folder), "augment": augment, "workers": cores()}


def build_peer(
    workers: Sequence[Worker],
    setup: Setup,
    what: str,
    params: int,
    compiled: bool = False,
    data: dict[str, Any] | None = None,
) -> Peer | None:
    """Builds the same network, or input pipeline, in every worker, and returns the fastest.

    `what` is 'train', 'forward', 'loop' or 'input'. `params` is the number of our network's parameters, 0 for 'input'.
    `compiled` uses torch.compile. `data`, for 'loop' and 'input', is the result of `export_data`. Returns None if
    PyTorch has no such network. Raises InputError when the peer's number of parameters differs, or when JAX uses a GPU
    and torch has none.
    """
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    config, python, info = setup.config, workers[0].python, workers[0].info
    if device == "cuda" and not info["cuda"]:
        raise InputError(f"--vs={python}: its torch has no GPU, and JAX runs on one")
    request = {"do": "build", "model": config.model, "what": what, "batch": config.batch_size}
    request |= {"input": setup.source.shape}
    request |= {"dtype": config.dtype, "device": device, "threads": cores(), "compile": compiled, "data": data}
    runs, source = [], ""
    for worker in workers:
        answer = worker.ask(request)
        if answer["params"] is None:
            return None
        if answer["params"] != params:
            raise InputError(
                f"{config.model} has {params:,} parameters, and its peer in {answer['source']} "
                f"{answer['params']:,}: they are not the same network"
            )
        runs.append(lambda steps, ask=worker.ask: ask({"do": "run", "steps": steps})["seconds"])
        source = answer["source"]
    torch = f"torch {info['torch']}" + " compiled" * compiled
    return Peer(_fastest(runs), torch if source.startswith("torch ") else f"{source}, {torch}")


def _fastest(runs: Sequence[Run]) -> Run:
    """Returns the fastest of `runs`, by the minimum over three rounds of two steps each, after a warm-up."""
    if len(runs) == 1:
        return runs[0]
    for run in runs:
        run(1)
    times = []
    for _ in range(3):
        for run in runs:
            time.sleep(SETTLE_SECONDS)
            times.append((run(2), runs.index(run)))
    return runs[min(times)[1]]


def interleave(ours: Run, theirs: Run, pairs: int) -> tuple[list[float], list[float]]:
    """Times two runs in turns, by blocks of steps of about a second each. The side that begins a pair alternates.

    `ours` and `theirs` run a number of steps and return their seconds. Returns the seconds per step in each of `pairs`
    blocks of ours, and of theirs. Before each block one step runs untimed, to fill the caches and get back memory that
    was released meanwhile.
    """
    sides = [(run, steps_in_a_block(run)) for run in (ours, theirs)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            run, steps = sides[side]
            time.sleep(SETTLE_SECONDS)
            run(1)
            seconds[side].append(run(steps) / steps)
    return seconds
