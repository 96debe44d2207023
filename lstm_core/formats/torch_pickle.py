"""A pickle read as data: containers, numbers and texts are built, and nothing in it is ever called.

Owns the opcodes, and how much of them a file may ask for. The few names that stand for something
harmless, and what a stored object's address means, are its caller's business.

References:
    Python, Lib/pickletools.py, which tells the opcodes apart here.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 1_000_000
"""A second's work, and 100 MB. A state dict asks for about 20 an array."""

Value = Any
"""What a pickle builds."""

_KEYS = (str, int, float, bool, type(None))
_MARK = object()
_CONSTANTS: dict[str, Value] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSHES = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE",
        "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
        "SHORT_BINBYTES", "BINBYTES8",
    }
)  # fmt: skip
_EMPTIES: dict[str, Callable[[], Value]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})


class ObjectClass(NamedTuple):
    """Stands for a class of which objects are told, and nothing but their attributes."""

    name: str


class Attributed(dict[Any, Any]):
    """A dictionary with attributes beside its entries, as state dicts are, or an object.

    Attributes:
        attributes: By name.
        kind: The name of an object's class, empty for a dictionary.
    """

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.attributes: dict[str, Value] = {}
        self.kind = kind


def ordered(items: Value = ()) -> Attributed:
    """Return an ordered dictionary, empty but for the pairs that Python 2 gave it at once."""
    made = Attributed()
    for pair in _expect(items, list) if items else []:
        key, value = _expect(pair, list)
        made[_key(key)] = value
    return made


class RefusedNameError(ValueError):
    """A pickle asks for a class or a function that is not known to be harmless.

    Attributes:
        name: Its module and name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"asks for {name:.200}, which is code and never run")
        self.name = name


class Unpickler:
    """Builds what one pickle describes."""

    def __init__(
        self, names: Mapping[str, Value], load_stored: Callable[[Sequence[Value]], Value]
    ) -> None:
        """Say what is known beside data.

        Args:
            names: What stands for each class or function that a pickle may name; those that it may
                call are functions here, and those that it may make objects of are `ObjectClass`es.
            load_stored: Returns an object that is stored outside the pickle, by its address.
        """
        self._names = names
        self._load_stored = load_stored
        self._stack: list[Value] = []
        self._memo: dict[int, Value] = {}
        self._handlers: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_MARK),
            "TUPLE": self._tuple,
            "APPEND": self._append,
            "APPENDS": lambda _: self._extend(self._pop_to_mark()),
            "SETITEM": self._set_item,
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "BINPUT": self._keep,
            "LONG_BINPUT": self._keep,
            "MEMOIZE": self._keep,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "BINPERSID": self._stored,
            "REDUCE": self._reduce,
            "NEWOBJ": self._new_object,
            "BUILD": self._build,
        }

    def load(self, file: BinaryIO) -> Value:
        """Return the object that a pickle describes.

        Args:
            file: Open where the pickle begins; it is left where it ends.

        Raises:
            RefusedNameError: It asks for code.
            ValueError: It is damaged, or no pickle of plain data.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if opcode.name == "STOP":
                    return self._pop()
                if count == MAX_OPCODES:
                    raise ValueError(f"has more than {MAX_OPCODES} opcodes")
                self._run(opcode.name, argument)
        except (IndexError, TypeError, AttributeError, OverflowError, struct.error) as error:
            # Opcodes that do not fit what is on the stack.
            raise ValueError(f"is damaged: {error}") from error
        raise ValueError("is damaged: it does not end")

    def _run(self, opcode: str, argument: Value) -> None:
        if opcode in _PUSHES:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTIES:
            self._stack.append(_EMPTIES[opcode]())
        elif opcode in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[opcode])]
            self._stack.append(tuple(items[::-1]))
        elif opcode in self._handlers:
            self._handlers[opcode](argument)
        elif opcode not in _IGNORED:
            raise ValueError(f"has the opcode {opcode}, which no state dict has")

    def _tuple(self, _argument: Value) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _append(self, _argument: Value) -> None:
        self._extend([self._pop()])

    def _extend(self, items: list[Value]) -> None:
        _expect(self._stack[-1], list).extend(items)

    def _set_item(self, _argument: Value) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _set_items(self, items: list[Value]) -> None:
        target = _expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _keep(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"is damaged: it recalls {index}, which it has not kept")
        self._stack.append(self._memo[index])

    def _global(self, argument: str) -> None:
        self._push_named(argument.replace(" ", ".", 1))

    def _stack_global(self, _argument: Value) -> None:
        name, module = self._pop(), self._pop()
        self._push_named(f"{_expect(module, str)}.{_expect(name, str)}")

    def _push_named(self, name: str) -> None:
        try:
            self._stack.append(self._names[name])
        except KeyError:
            raise RefusedNameError(name) from None

    def _stored(self, _argument: Value) -> None:
        self._stack.append(self._load_stored(_expect(self._pop(), tuple)))

    def _reduce(self, _argument: Value) -> None:
        """Call one of the names that the caller knows; nothing else on the stack can be called."""
        arguments, function = _expect(self._pop(), tuple), self._pop()
        if not callable(function):
            raise ValueError("calls what is no function")  # noqa: TRY004 - the file is at fault
        self._stack.append(function(*arguments))

    def _new_object(self, _argument: Value) -> None:
        arguments, of_class = self._pop(), _expect(self._pop(), ObjectClass)
        if arguments != ():
            raise ValueError("gives arguments to an object")
        self._stack.append(Attributed(of_class.name))

    def _build(self, _argument: Value) -> None:
        state = _expect(self._pop(), dict)
        _expect(self._stack[-1], Attributed).attributes.update(state)

    def _pop(self) -> Value:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("is damaged: it takes a mark for a value")
        return value

    def _pop_to_mark(self) -> list[Value]:
        items: list[Value] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]


def _key(key: Value) -> Value:
    # Another key's hash would be code, or a tuple's, which is as deep as the file likes.
    if type(key) not in _KEYS:
        raise ValueError(f"has a key of type {type(key).__name__}")
    return key


def _expect(value: Value, kind: type[Any]) -> Any:  # noqa: ANN401 - an instance of `kind`
    if not isinstance(value, kind):
        raise ValueError(f"has a {type(value).__name__} in place of a {kind.__name__}")  # noqa: TRY004 - the file is at fault
    return value
