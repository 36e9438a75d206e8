"""How long a person waits: from the command to the end of the first training step."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from cnnjax.config import Config
from cnnjax.errors import InputError


def seconds(config: Config, data_dir: str, cache: pathlib.Path) -> float:
    """Starts `cnnjax train` in a process of its own, with `cache` for compiled code, and waits for its first step.

    The run is killed then, and its folder is gone. Raises InputError when it fails before.
    """
    with tempfile.TemporaryDirectory(prefix="cnnjax-bench-") as name, tempfile.TemporaryFile("w+") as output:
        folder = pathlib.Path(name)
        settings = dataclasses.asdict(config) | {"log_every": "1 steps"}
        (folder / "config.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "cnnjax", "train", f"--config={folder / 'config.json'}"]
        command += [f"--workdir={folder / 'run'}", f"--data_dir={data_dir}"]
        log = folder / "run" / "metrics.jsonl"
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not log.exists() or not log.stat().st_size:
                if process.poll() is not None:
                    output.seek(0)
                    said = (output.read().strip().splitlines() or ["nothing"])[-1]
                    raise InputError(f"the run ended before its first step: {said.removeprefix('error: ')}")
                time.sleep(0.01)
            return time.perf_counter() - begun
        finally:
            process.kill()
            process.wait()
