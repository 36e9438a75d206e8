"""Fake trainings: an executor that calls Python functions in place of `cnnjax train`."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from cnnjax.runs import workdir
from cnnjax.runs.executors import Job

Training = Callable[[pathlib.Path], int | None]  # run's folder -> what Job.poll returns


class FakeExecutor:
    """Starts fake trainings: the n-th start of any run calls the n-th function at each poll, later ones the last."""

    def __init__(self, *trainings: Training) -> None:
        self.trainings = trainings
        self.folders: list[pathlib.Path] = []  # of the runs that were started

    def __call__(self, command: list[str], log: pathlib.Path) -> Job:
        self.folders.append(log.parent)
        training = self.trainings[min(len(self.folders), len(self.trainings)) - 1]
        statuses: list[int] = []

        def poll() -> int | None:
            return statuses[0] if statuses else training(log.parent)

        return Job(poll, lambda kill: statuses.append(-9 if kill else 143))


def write_metrics(folder: pathlib.Path, accuracies: list[float]) -> None:
    """Writes a metrics.jsonl with one evaluation per epoch."""
    lines = [{"step": i, "epoch": i, "val/accuracy": x, "val/loss": 1 - x} for i, x in enumerate(accuracies, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_result(folder: pathlib.Path, accuracies: list[float]) -> int:
    """Completes a run."""
    write_metrics(folder, accuracies)
    workdir.write_json(folder / "result.json", {"step": len(accuracies)})
    return 0


def completes(folder: pathlib.Path) -> int:
    return write_result(folder, [0.5, 0.6])


def keeps_running(folder: pathlib.Path) -> Any:
    return None


def fails(folder: pathlib.Path) -> int:
    (folder / "output.txt").write_text("a\nb\nc\nd\ne\nf\nerror: it was wrong\n")
    return 1


def learns(folder: pathlib.Path) -> int:
    """Completes with an accuracy that is highest at a learning rate of 0.1, and lower for each further seed."""
    config = json.loads((folder / "config.json").read_text())
    best = 1 - abs(config["lr"] - 0.1) - config["seed"] / 100
    return write_result(folder, [best / 2, best])
