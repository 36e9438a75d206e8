"""Startup time: from the command to the end of the first training step."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from cnnjax import register
from cnnjax.config import Config
from cnnjax.errors import InputError

POLL_SECONDS = 0.01


def startup_seconds(config: Config, data_dir: str, cache_dir: pathlib.Path) -> float:
    """Starts `cnnjax train` in a new process, and returns the seconds until its first step is logged.

    Compiled programs are read from and written to `cache_dir`. The process is then killed, and the run's folder
    deleted. Raises InputError when the run ends before its first step.
    """
    with tempfile.TemporaryDirectory(prefix="cnnjax-bench-") as name, tempfile.TemporaryFile("w+") as output:
        folder = pathlib.Path(name)
        values = dataclasses.asdict(config) | {"log_every": "1 steps"}
        (folder / "config.json").write_text(json.dumps(values))
        command = [sys.executable, "-m", "cnnjax", "train", f"--config={folder / 'config.json'}"]
        command += [f"--workdir={folder / 'run'}", f"--data_dir={data_dir}", *register.flags()]
        log = folder / "run" / "metrics.jsonl"
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache_dir)}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not log.exists() or not log.stat().st_size:
                if process.poll() is not None:
                    output.seek(0)
                    last_line = (output.read().strip().splitlines() or ["nothing"])[-1]
                    raise InputError(f"the run ended before its first step: {last_line.removeprefix('error: ')}")
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
