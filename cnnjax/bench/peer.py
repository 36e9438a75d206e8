"""PyTorch beside us: a worker process of another Python, and the turns that the two take."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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
# OpenMP's threads wait for the next loop busily or asleep. The one is faster where a machine does nothing else, the
# other by much where it does; so there is a worker of each kind, and the faster one is the peer.
WAITING = ({}, {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"})
FILES = 10_000  # files that a worker gets of a split: enough for any block, and written in seconds
SETTLE = 0.25  # seconds between turns: busy threads of the side before go to sleep, Intel's after 0.2

Ask = Callable[[dict[str, Any]], dict[str, Any]]


class Worker(NamedTuple):
    python: str
    about: dict[str, Any]  # what it said of itself
    ask: Ask  # sends a request and waits for the answer; InputError for what it says has failed


@contextlib.contextmanager
def start_all(python: str) -> Iterator[list[Worker]]:
    """The workers, until the context ends. Raises InputError when `python` is not a Python that has torch."""
    kinds = WAITING if jax.default_backend() == "cpu" else WAITING[:1]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_process(python, variables)) for variables in kinds]


@contextlib.contextmanager
def _process(python: str, variables: dict[str, str]) -> Iterator[Worker]:
    # Theirs is another environment, and started without launch.sh.
    ours = ("PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "VIRTUAL_ENV", "GLIBC_TUNABLES")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        try:
            process = subprocess.Popen(
                [python, str(WORKER)], env=environment, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"--vs={python}: {error.strerror}; expected the path of a Python that has torch"
            ) from error
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def answer() -> dict[str, Any]:
            line = answers.readline()
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError
            except ValueError:
                complaints.seek(0)
                said = [text for text in complaints.read().splitlines() if text.strip()] or [line.strip() or "nothing"]
                raise InputError(
                    f"--vs={python} ended with {said[-1][:200]!r}; expected the path of a Python that has torch"
                ) from None
            if "error" in found:
                raise InputError(f"--vs={python}: {found['error']}")
            return found

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            with contextlib.suppress(BrokenPipeError):  # then it has died, and the answer says of what
                print(json.dumps(request), file=requests, flush=True)
            return answer()

        try:
            yield Worker(python, answer(), ask)
        finally:
            with contextlib.suppress(BrokenPipeError):
                requests.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            answers.close()


def export(folder: pathlib.Path, config: Config, data_dir: str) -> dict[str, Any]:
    """Writes a config's training data where a worker can read them; returns what a request says of them.

    Images of one size are decoded, as torchvision keeps CIFAR-10; of others the first FILES are files.
    """
    examples = load(config.dataset, config.train_split, data_dir)
    indices = np.arange(len(examples))
    if None in examples.shape:
        encoded, labels = examples.read_encoded(indices[:FILES])
        for index, data in enumerate(encoded):
            (folder / str(index)).write_bytes(data)
    else:
        images, labels = examples.read(indices)
        np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    augment = [[call.name, call.args, call.kwargs] for call in spec.parse_pipeline(config.augment)]
    return {"folder": str(folder), "augment": augment, "workers": cores()}


def build(
    workers: Sequence[Worker],
    setup: Setup,
    what: str,
    params: int,
    compiled: bool = False,
    data: dict[str, Any] | None = None,
) -> tuple[Run, str] | None:
    """The peer's steps, of the fastest worker, and where they come from; None where it has no such network.

    `params` are our network's, 0 for the input alone. Raises InputError when the peer's network has another number of
    parameters, or it has no GPU and we have.
    """
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    config, python, about = setup.config, workers[0].python, workers[0].about
    if device == "cuda" and not about["cuda"]:
        raise InputError(f"--vs={python}: we run on a GPU, and its torch sees none")
    request = {
        "do": "build",
        "model": config.model,
        "what": what,
        "batch": config.batch_size,
        "input": setup.source.shape,
    }
    request |= {"input": setup.source.shape}
    request |= {"dtype": config.dtype, "device": device, "threads": cores(), "compile": compiled, "data": data}
    runs = []
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
    torch = f"torch {about['torch']}" + " compiled" * compiled
    return _fastest(runs), torch if source.startswith("torch ") else f"{source}, {torch}"


def _fastest(runs: Sequence[Run]) -> Run:
    """The one that takes least for a step, of three rounds after the first."""
    if len(runs) == 1:
        return runs[0]
    for run in runs:
        run(1)
    rounds = []
    for _ in range(3):
        for run in runs:
            time.sleep(SETTLE)
            rounds.append((run(2), runs.index(run)))
    return runs[min(rounds)[1]]


def interleave(ours: Run, theirs: Run, pairs: int) -> tuple[list[float], list[float]]:
    """The seconds of a step of ours and of theirs, in pairs of blocks; who begins a pair alternates.

    A turn begins with a step that does not count: memory that was given back meanwhile is found again, and caches fill.
    """
    sides = [(run, steps_in_a_block(run)) for run in (ours, theirs)]
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            run, steps = sides[side]
            time.sleep(SETTLE)
            run(1)
            times[side].append(run(steps) / steps)
    return times
