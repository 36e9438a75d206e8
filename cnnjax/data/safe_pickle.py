"""Reads untrusted pickles without running code: an interpreter of pickle's opcodes that builds inert values.

Numbers, texts, bytes, lists, tuples and dicts come back as such. Whatever else a pickle asks for (a class, a call of a
function, a persistent id) becomes a `Record` of the name and the arguments: nothing is looked up, imported or called.
`pickled_arrays` converts the records of NumPy's arrays.
"""

import dataclasses
import functools
import io
import pickletools
from collections.abc import Callable
from typing import Any

from cnnjax.errors import InputError

MAX_OPERATIONS = 1_000_000  # a second; the checkpoint of a ResNet-152 with its optimizer takes 0.1 million
PERSISTENT_ID = "persistent id"  # name of a Record whose arguments are (the id,)


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Record:
    """Stands for an object that a pickle would have had Python make.

    Attributes:
      name: full name of the class or function, as in 'argparse.Namespace'; '' if the pickle calls a result of a call.
      args: the arguments of the call; None if the pickle only names the class or function.
      state: the state that the pickle gives the object, usually a dict of its attributes; None if it gives none.
      entries: the items that the pickle puts into an object of a subclass of dict.
    """

    name: str
    args: Any = None
    state: Any = None
    entries: dict[Any, Any] | None = None


def loads(data: bytes) -> Any:
    """Returns the inert value of a pickle. Raises InputError as `load` does."""
    return load(io.BytesIO(data))


def load(file: io.BytesIO, persistent_ids: list[Any] | None = None) -> Any:
    """Returns the inert value of the pickle at the file's position, and moves the position to the end of the pickle.

    Appends the persistent ids, in the order of the pickle, to `persistent_ids` unless it is None.
    Strings written by Python 2 come back as str if they are ASCII, else as bytes. Items of dicts whose keys are not
    texts, bytes or integers are dropped, as are the elements of objects that are not containers. The value may contain
    itself, and may be nested to any depth. Raises InputError for a pickle that is damaged or has more than
    `MAX_OPERATIONS` operations.
    """
    machine = _Machine(file.getbuffer().nbytes)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.charge(1)
            machine.run(opcode.name, argument)
        if persistent_ids is not None:
            persistent_ids += machine.persistent_ids
        return machine.stack.pop()
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(f"the pickle is truncated or damaged ({type(error).__name__})") from None


class _Machine:
    """The state of pickle's virtual machine: a stack, the positions of marks on it, and a memo.

    The cost of any operation is limited by the operations that pushed its operands, or is charged. So a pickle of n
    bytes takes O(n) time and memory.
    """

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.persistent_ids: list[Any] = []
        self.operations = MAX_OPERATIONS  # left
        self.encoded = size  # bytes that may still be made out of texts

    def charge(self, count: int) -> None:
        """Takes `count` operations from the budget. Raises InputError if it is used up."""
        self.operations -= count
        if self.operations < 0:
            raise InputError(f"the pickle takes more than {MAX_OPERATIONS:,} operations")

    def run(self, name: str, argument: Any) -> None:
        """Runs one opcode with its decoded argument."""
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise InputError(f"the pickle uses {name}, which no file of arrays needs")

    def pop_to_mark(self) -> list[Any]:
        """Removes the values above the last mark, and the mark, from the stack and returns them."""
        at = self.marks.pop()
        values = self.stack[at:]
        del self.stack[at:]
        return values


def _pop(machine: _Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _push_string(machine: _Machine, argument: str) -> None:
    """Pushes a string of Python 2, which pickletools decodes as Latin-1."""
    machine.stack.append(argument if argument.isascii() else argument.encode("latin1"))


def _push_tuple(machine: _Machine, _: Any, length: int) -> None:
    values = tuple(machine.stack[-length:])
    if len(values) < length:
        raise IndexError
    machine.stack[-length:] = [values]


def _append(machine: _Machine, values: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(values)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    """Puts `values`, keys and values in turn, into the dict or object on top of the stack."""
    target = machine.stack[-1]
    if isinstance(target, Record):
        target.entries = {} if target.entries is None else target.entries
        target = target.entries
    if isinstance(target, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing a tuple of tuples can take for ever, and so can integers that are made to collide.
            if isinstance(key, str | bytes) or (isinstance(key, int) and key.bit_length() < 64):
                target[key] = value


def _push_dict(machine: _Machine, _: Any) -> None:
    values = machine.pop_to_mark()
    machine.stack.append({})
    _set_items(machine, values)


def _push_global(machine: _Machine, argument: str | None) -> None:
    """Pushes a Record for a class or function: of 'module name', or of the two texts on top of the stack."""
    module, name = argument.split(" ", 1) if argument else machine.stack[-2:]
    if argument is None:
        del machine.stack[-2:]
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError
    machine.stack.append(Record(f"{module}.{name}"))


def _push_call(machine: _Machine, function: Any, args: Any) -> None:
    """Pushes what a call stands for: a dict, bytes or, for all other functions and classes, a Record."""
    name = function.name if isinstance(function, Record) and function.args is None else ""
    if name in _DICTS:
        machine.stack.append({})
        pairs = args[0] if args and isinstance(args[0], list) else []
        machine.charge(2 * len(pairs))
        _set_items(machine, [value for key, value in pairs for value in (key, value)])
    elif name == "_codecs.encode":  # with it, Python 3 writes bytes for Python 2
        text, encoding = args
        machine.encoded -= len(text)
        if encoding not in ("latin1", "latin-1") or machine.encoded < 0:
            raise ValueError
        machine.stack.append(text.encode("latin1"))
    elif name in ("builtins.bytes", "__builtin__.bytes") and not args:
        machine.stack.append(b"")
    else:
        machine.stack.append(Record(name, args))


def _reduce(machine: _Machine, _: Any, operands: int = 2) -> None:
    function, args, *_keywords = machine.stack[-operands:]
    del machine.stack[-operands:]
    _push_call(machine, function, args)


def _push_object(machine: _Machine, argument: str | None) -> None:
    """Pushes an object of the class 'module name', or of the first value above the mark, with the other values."""
    args = machine.pop_to_mark()
    if argument:
        _push_global(machine, argument)
        args.insert(0, machine.stack.pop())
    _push_call(machine, args[0], tuple(args[1:]))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    if isinstance(target := machine.stack[-1], Record):
        target.state = state


def _push_persistent(machine: _Machine, argument: str | None) -> None:
    """Pushes a Record for the persistent id `argument`, or that on top of the stack."""
    identity = machine.stack.pop() if argument is None else argument
    machine.persistent_ids.append(identity)
    machine.stack.append(Record(PERSISTENT_ID, (identity,)))


def _put(machine: _Machine, argument: int | None) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


_DICTS = ("collections.OrderedDict", "collections.defaultdict")
_CONSTANTS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # sets are of no use here, and need hashes
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push_string),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "FROZENSET": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    **{f"TUPLE{length}": functools.partial(_push_tuple, length=length) for length in (1, 2, 3)},
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: _append(machine, machine.pop_to_mark())),
    "DICT": _push_dict,
    "SETITEM": lambda machine, _: _set_items(machine, [machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _push_global),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "NEWOBJ_EX": functools.partial(_reduce, operands=3),
    **dict.fromkeys(("INST", "OBJ"), _push_object),
    "BUILD": _build,
    **dict.fromkeys(("PERSID", "BINPERSID"), _push_persistent),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, argument: machine.stack.append(machine.memo[argument])
    ),
}
