"""Time of a step by layer, from JAX's profiler and the names of operations in the compiled program.

The profiler records when each instruction of the program ran; the program's metadata has the layer of each. On a CPU
several instructions run at once: their common time is divided evenly among them, so that the sum is the elapsed time.
Tested with traces of CPUs. On other devices it reads the planes named /device:..., if these name instructions alike.
"""

import bisect
import collections
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from cnnjax.bench.measure import Run
from cnnjax.errors import InputError

TRACED_STEPS = 5


class LayerOp(NamedTuple):
    """A kind of operation in a layer.

    Attributes:
        layer: path of the layer, as in the parameters ('stage1/block1/conv1'), or the network's class; '' outside of
            the network.
        direction: 'forward', 'backward', or '' outside of the network.
        kind: JAX's primitive, as in 'reduce_sum', or the HLO instruction where XLA added it.
    """

    layer: str
    direction: str
    kind: str


class Span(NamedTuple):
    """One execution of an instruction.

    Attributes:
        instruction: its name in the HLO.
        begin: in seconds, as `end`, on the profiler's clock.
    """

    instruction: str
    begin: float
    end: float


def record(folder: pathlib.Path, run: Run, hlo_text: str) -> tuple[dict[LayerOp, float], float]:
    """Profiles `TRACED_STEPS` steps, with a trace in `folder` for TensorBoard and Perfetto.

    `run` runs a number of steps and returns their seconds; `hlo_text` is the compiled program that it executes. Returns
    the seconds per step of each operation, and the seconds per step in which none ran. Raises InputError where the
    trace holds no times of instructions.
    """
    run(2)
    with jax.profiler.trace(str(folder)):
        elapsed = run(TRACED_STEPS)
    file = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    spans = list(spans_of(jax.profiler.ProfileData.from_file(str(file))))
    if not spans:
        raise InputError(f"{file} holds no times of instructions: the profiler of this backend does not record them")
    ops = layer_ops(hlo_text)
    seconds: dict[LayerOp, float] = collections.defaultdict(float)
    for instruction, total in divide_time(spans).items():
        seconds[ops.get(instruction, LayerOp("", "", instruction))] += total / TRACED_STEPS
    return dict(seconds), max(0.0, elapsed / TRACED_STEPS - sum(seconds.values()))


def spans_of(profile: Any) -> Iterator[Span]:
    """Yields every execution of an instruction: on all streams of the devices or, without any, on all host threads."""
    planes = list(profile.planes)
    planes = [plane for plane in planes if plane.name.startswith("/device:")] or planes
    for plane in planes:
        threads = [[(event, dict(event.stats)) for event in line.events] for line in plane.lines]
        begins = [sorted(event.start_ns for event, stats in thread if "hlo_op" in stats) for thread in threads]
        # On a CPU an instruction that another thread completes has a second event there. That thread runs other
        # instructions before it writes the event: the first one that it begins tells when the instruction had ended.
        ends = {
            stats["_c"]: (event.end_ns, begins[number])
            for number, thread in enumerate(threads)
            for event, stats in thread
            if event.name.startswith("end: ") and "_c" in stats
        }
        for event, stats in (pair for thread in threads for pair in thread if "hlo_op" in pair[1]):
            end, others = ends.get(stats.get("_p"), (0.0, []))
            next_begin = others[i] if (i := bisect.bisect_left(others, event.end_ns)) < len(others) else end
            yield Span(str(stats["hlo_op"]), event.start_ns / 1e9, max(event.end_ns, min(end, next_begin)) / 1e9)


def divide_time(spans: Iterable[Span]) -> dict[str, float]:
    """Returns the total seconds of each instruction, by name.

    Time in which several run is divided evenly among them.
    """
    changes = sorted(
        (time, kind, number, span.instruction)
        for number, span in enumerate(spans)
        for kind, time in enumerate((span.begin, span.end))
    )
    running: dict[int, str] = {}
    seconds: dict[str, float] = collections.defaultdict(float)
    previous = 0.0
    for time, kind, number, instruction in changes:
        for other in running.values():
            seconds[other] += (time - previous) / len(running)
        if kind == 0:
            running[number] = instruction
        else:
            running.pop(number, None)
        previous = time
    return dict(seconds)


_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*)$", re.MULTILINE)
_OP_NAME = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
_OPERAND = re.compile(r"%([\w.-]+)")
_NETWORK = re.compile(r"(?:transpose\()?jvp\((\w+)\)+|([A-Z]\w*)")  # its scope in training, and in evaluation


def layer_ops(hlo_text: str) -> Mapping[str, LayerOp]:
    """Returns the layer and kind of each instruction in a compiled program: name in the HLO -> `LayerOp`.

    A fusion belongs to the layer of its result. An instruction that XLA added, without metadata, belongs to the layer
    that it prepares: that of the first instruction with metadata that uses its result.
    """
    op_names: dict[str, str] = {}
    users: dict[str, list[str]] = collections.defaultdict(list)
    instructions = []
    for instruction, rest in _INSTRUCTION.findall(hlo_text):
        instructions.append(instruction)
        if match := _OP_NAME.search(rest):
            op_names[instruction] = match.group(1)
        for operand in _OPERAND.findall(rest):
            users[operand].append(instruction)

    def of_first_user(instruction: str) -> LayerOp:
        queue, visited = collections.deque([instruction]), {instruction}
        while queue:
            for user in users[queue.popleft()]:
                if user in op_names:
                    return parse_op_name(op_names[user])._replace(kind=re.sub(r"\.\d+$", "", instruction))
                if user not in visited:
                    visited.add(user)
                    queue.append(user)
        return LayerOp("", "", instruction)

    return {name: parse_op_name(op_names[name]) if name in op_names else of_first_user(name) for name in instructions}


def parse_op_name(op_name: str) -> LayerOp:
    """Parses an op_name of the HLO's metadata, such as 'jit(train_step)/transpose(jvp(LeNet5))/c1/reduce_sum'.

    This example is a 'reduce_sum' in the 'backward' pass of layer 'c1'. Without a network's class in the name, layer
    and direction are ''.
    """
    *scopes, kind = op_name.split("/")
    network = next(((i, m) for i, scope in enumerate(scopes) if (m := _NETWORK.fullmatch(scope))), None)
    if network is None:
        return LayerOp("", "", kind)
    index, match = network
    layers = [scope for scope in scopes[index + 1 :] if "(" not in scope]
    direction = "backward" if scopes[index].startswith("transpose(") else "forward"
    return LayerOp("/".join(layers) or match.group(1) or match.group(2), direction, kind)
