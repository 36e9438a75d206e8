"""Where the time of a step goes, by layer: from JAX's profiler and the names in the compiled program.

The profiler says when each instruction of the program ran, and the program of which layer each instruction is. On a
CPU several run at once: a moment is divided evenly among those that run in it, so that the parts add up to the whole.
Made with the traces of CPUs; of other devices it reads the planes named /device:..., if these name instructions alike.
"""

import collections
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from cnnjax.bench.measure import Run
from cnnjax.errors import InputError

STEPS = 5  # that are traced


class Part(NamedTuple):
    """A kind of operation in a layer."""

    layer: str  # its path, as in the parameters', or the network's class; '' outside of the network
    direction: str  # 'forward', 'backward', or '' outside of the network
    kind: str  # JAX's primitive, as in 'reduce_sum', or the HLO's instruction where XLA added it


class Span(NamedTuple):
    instruction: str
    begin: float  # seconds
    end: float


def record(folder: pathlib.Path, run: Run, text: str) -> tuple[dict[Part, float], float]:
    """Writes a trace of STEPS steps to the folder: seconds of a step by part, and the seconds in which nothing ran.

    `text` is the compiled program. TensorBoard and Perfetto read the trace. Raises InputError where it has no times
    of instructions.
    """
    run(2)
    with jax.profiler.trace(str(folder)):
        wall = run(STEPS)
    file = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    spans = list(_spans(jax.profiler.ProfileData.from_file(str(file))))
    if not spans:
        raise InputError(f"{file} holds no times of instructions: this backend's profiler does not say them")
    names = parts(text)
    totals: dict[Part, float] = collections.defaultdict(float)
    for instruction, seconds in share(spans).items():
        totals[names.get(instruction, Part("", "", instruction))] += seconds / STEPS
    return dict(totals), max(0.0, wall / STEPS - sum(totals.values()))


def _spans(profile: Any) -> Iterator[Span]:
    """When each instruction ran, of all threads of the host, or of all streams of the devices if there are any."""
    planes = list(profile.planes)
    planes = [plane for plane in planes if plane.name.startswith("/device:")] or planes
    for plane in planes:
        events = [(event, dict(event.stats)) for line in plane.lines for event in line.events]
        # On a CPU one that another thread completes has a second event, which says when.
        ends = {stats["_c"]: event.end_ns for event, stats in events if event.name.startswith("end: ")}
        for event, stats in events:
            if "hlo_op" in stats:
                end = max(event.end_ns, ends.get(stats.get("_p"), 0.0))
                yield Span(str(stats["hlo_op"]), event.start_ns / 1e9, end / 1e9)


def share(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds by instruction; those of a moment in which several run are divided evenly among them."""
    changes = sorted(
        (time, kind, number, span.instruction)
        for number, span in enumerate(spans)
        for kind, time in enumerate((span.begin, span.end))
    )
    running: dict[int, str] = {}
    totals: dict[str, float] = collections.defaultdict(float)
    before = 0.0
    for time, kind, number, instruction in changes:
        for one in running.values():
            totals[one] += (time - before) / len(running)
        if kind == 0:
            running[number] = instruction
        else:
            running.pop(number, None)
        before = time
    return dict(totals)


_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*)$", re.MULTILINE)
_NAMED = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
_OPERAND = re.compile(r"%([\w.-]+)")
_NETWORK = re.compile(r"(?:transpose\()?jvp\((\w+)\)+|([A-Z]\w*)")  # a pass in training, and in evaluation


def parts(text: str) -> Mapping[str, Part]:
    """The layer of each instruction of a compiled program.

    A fusion counts for the layer of its result. What XLA adds of its own is without a name, and counts for the layer
    that it is made for: that of the first instruction that uses it and has a name.
    """
    paths: dict[str, str] = {}
    users: dict[str, list[str]] = collections.defaultdict(list)
    names = []
    for name, rest in _INSTRUCTION.findall(text):
        names.append(name)
        if found := _NAMED.search(rest):
            paths[name] = found.group(1)
        for operand in _OPERAND.findall(rest):
            users[operand].append(name)

    def made_for(name: str) -> Part:
        queue, seen = collections.deque([name]), {name}
        while queue:
            for user in users[queue.popleft()]:
                if user in paths:
                    return part(paths[user])._replace(kind=re.sub(r"\.\d+$", "", name))
                if user not in seen:
                    seen.add(user)
                    queue.append(user)
        return Part("", "", name)

    return {name: part(paths[name]) if name in paths else made_for(name) for name in names}


def part(path: str) -> Part:
    """'jit(train_step)/transpose(jvp(LeNet5))/c1/reduce_sum' is the sum in c1's backward pass."""
    *scopes, kind = path.split("/")
    found = next(((i, m) for i, scope in enumerate(scopes) if (m := _NETWORK.fullmatch(scope))), None)
    if found is None:
        return Part("", "", kind)
    place, match = found
    inside = [scope for scope in scopes[place + 1 :] if "(" not in scope]
    direction = "backward" if scopes[place].startswith("transpose(") else "forward"
    return Part("/".join(inside) or match.group(1) or match.group(2), direction, kind)
