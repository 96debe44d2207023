"""The graph of a program of `torch.export` on its way to one of ONNX: arguments, names, sizes.

Owns how the JSON tells of values. What becomes of a single node is told by
`torch_export_operators`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_building import GraphBuilder

Json = Any
"""What `json.loads` gives, not checked yet."""
Kind = TypeVar("Kind", int, str, dict[str, Any], list[Any])

TYPES = {4: 6, 5: 7, 6: 10, 7: 1, 8: 11, 13: 16}
"""ONNX's numbers of PyTorch's types."""
_CHECKS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_async.msg",
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)
"""What compares values with what was traced, and gives nothing."""
_SHARING = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "add_.Tensor", "alias.default", "contiguous.default", "detach.default", "detach_.default",
        "dropout.default", "permute.default", "relu_.default", "reshape.default", "select.int",
        "slice.Tensor", "squeeze.default", "squeeze.dim", "squeeze.dims", "to.dtype",
        "to.dtype_layout", "transpose.int", "unsqueeze.default", "view.default",
    )
)  # fmt: skip
"""What may give its first argument's own memory, so that both change where one is changed."""
_IN_PLACE = frozenset({"torch.ops.aten.add_.Tensor", "torch.ops.aten.relu_.default"})
_SIZE = "torch.ops.aten.sym_size.int"
_LARGEST = float(np.finfo(np.float32).max)
_MAX_SHARED = 20
"""Names, one for another, of what is changed in place."""
MAX_LISTED = 100_000
"""Nodes of a graph, or arguments of one."""


def entry(value: Json, name: str, kind: type[Kind]) -> Kind:
    """Return an entry of a JSON object; ValueError if it is missing or of another type."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        problem = f"{name:.80} is missing, or is not what it should be"
        raise ValueError(problem)  # noqa: TRY004 - the file is at fault
    return found


def listed(value: Json, name: str) -> list[dict[str, Any]]:
    """Return an entry that is a list of JSON objects; raises as `entry`."""
    found = entry(value, name, list)
    if len(found) > MAX_LISTED or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{name:.80} is no list of objects, or has more than {MAX_LISTED}")
    return found


def named(value: Json, name: str) -> str:
    """Return the name of a tensor that an entry stands for; raises as `entry`."""
    return entry(entry(value, name, dict), "name", str)


class Reference(str):
    """The name of a value, among a node's arguments, which are texts and numbers else."""

    __slots__ = ()


Translate = Callable[["Program", "Call"], None]
"""Puts one node into ONNX's words."""


class Call:
    """One node.

    Attributes:
        name: That of its first output.
        label: Its own.
        target: What it calls.
        arguments: By name: numbers, texts, `Reference`s, lists of them, and None.
        outputs: Names of what it gives.
    """

    def __init__(self, node: Json) -> None:
        """Read its arguments; ValueError where they are damaged."""
        self.target = entry(node, "target", str)
        self.arguments = {
            entry(each, "name", str): _argument(entry(each, "arg", dict))
            for each in listed(node, "inputs")
        }
        self.outputs = [
            str(value)
            for each in listed(node, "outputs")
            for value in [_argument(each)]
            if isinstance(value, Reference)
        ]
        if not self.outputs:
            raise ValueError(f"{self.target:.80} gives nothing that is known")
        self.name = self.outputs[0]
        self.label = entry(node, "name", str) if node.get("name") else self.name

    def value(self, name: str) -> str:
        """Return an argument that is a value's name; SpecError if it is something else."""
        found = self.arguments.get(name)
        if not isinstance(found, Reference):
            raise SpecError(self.name, f"its {name} is no value of the graph")
        return found

    def first(self) -> str:
        """Return the value that it works on; raises as `value`."""
        return self.value("self" if "self" in self.arguments else "input")

    def taken(self) -> list[str]:
        """Return every value that it takes."""
        found: list[str] = []
        for argument in self.arguments.values():
            each = argument if isinstance(argument, list) else [argument]
            found += [str(value) for value in each if isinstance(value, Reference)]
        return found

    def optional(self, name: str) -> str:
        """Return an argument that is a value's name, empty where it is left out."""
        return "" if self.arguments.get(name) is None else self.value(name)

    def values(self, name: str) -> list[str]:
        """Return an argument that is a list of values' names; raises as `value`."""
        found = self.arguments.get(name)
        if not isinstance(found, list) or not all(isinstance(each, Reference) for each in found):
            raise SpecError(self.name, f"its {name} is no list of values")
        return [str(each) for each in found]

    def number(self, name: str, default: float | None = None) -> float:
        """Return an argument that is a number; SpecError if it is something else."""
        found = self.arguments.get(name)
        found = default if found is None else found
        # As a comparison, since an integer of JSON may be larger than any float.
        if not isinstance(found, int | float) or not abs(found) <= _LARGEST:
            raise SpecError(self.name, f"its {name} is no finite number")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an argument that is an integer; raises as `number`."""
        found = self.number(name, default)
        if not isinstance(found, int):
            raise SpecError(self.name, f"its {name} is no integer")
        return found

    def sizes(self, name: str) -> list[int | Reference]:
        """Return an argument that is a list of sizes, known or computed; raises as `value`."""
        found = self.arguments.get(name)
        whole: list[Any] = found if isinstance(found, list) else [found]
        if not all(isinstance(each, Reference) or type(each) is int for each in whole):
            raise SpecError(self.name, f"its {name} is no list of sizes")
        return whole


def _argument(told: dict[str, Any]) -> Any:  # noqa: ANN401 - see `Call.arguments`
    kind, value = next(iter(told.items()), ("", None))
    if kind in {"as_int", "as_float", "as_bool", "as_string", "as_scalar_type"}:
        return value
    is_computed = kind == "as_sym_int" and isinstance(value, dict) and "as_name" in value
    if kind == "as_tensor" or is_computed:
        return Reference(entry(value, "name" if kind == "as_tensor" else "as_name", str))
    if kind == "as_sym_int":
        return entry(value, "as_int", int)
    if kind in {"as_ints", "as_floats", "as_bools"}:
        return value
    if kind in {"as_tensors", "as_sym_ints"}:
        single = kind.removesuffix("s")
        return [_argument({single: each}) for each in listed({"": value}, "")]
    # None, and what only tells where and how numbers are kept.
    return None


def _call(node: Json, operators: Mapping[str, Translate]) -> Call:
    """Return a node; SpecError if its operator is not served."""
    target = entry(node, "target", str)
    if target not in operators:
        operator = target.removeprefix("torch.ops.")
        label = entry(node, "name", str) if node.get("name") else operator
        raise SpecError(f"{label:.80}", f"is a {operator:.80}, which is not served")
    return Call(node)


class Program(GraphBuilder):
    """A program on its way to an ONNX graph."""

    def __init__(self, metas: Json) -> None:
        """Begin.

        Args:
            metas: What is told of each tensor.
        """
        super().__init__()
        self._metas = metas

    def translate(
        self, nodes: Sequence[Json], outputs: Sequence[str], operators: Mapping[str, Translate]
    ) -> None:
        """Add the nodes.

        Args:
            nodes: In their order.
            outputs: Names of what the program gives.
            operators: What puts a node of each target into ONNX's words.

        Raises:
            SpecError: One cannot be served.
            ValueError: One is damaged.
        """
        calls = [
            _call(node, operators) for node in nodes if entry(node, "target", str) not in _CHECKS
        ]
        taken = [value for call in calls if call.target != _SIZE for value in call.taken()]
        num_taken = Counter([*taken, *outputs])
        makers = {output: call for call in calls for output in call.outputs}
        for call in calls:
            if call.target in _IN_PLACE:
                self._check_in_place(call, num_taken, makers)
            operators[call.target](self, call)

    def _check_in_place(
        self, call: Call, num_taken: Mapping[str, int], makers: Mapping[str, Call]
    ) -> None:
        """Refuse to change what something else takes too, under its own or another name."""
        maker: Call | None = call
        for _ in range(_MAX_SHARED):
            if maker is None or maker.target not in _SHARING:
                return
            value = maker.first()
            if num_taken[value] > 1 or value in self._stored:
                break
            maker = makers.get(value)
        problem = "changes in place what is kept, or taken elsewhere too; leave out inplace"
        raise SpecError(call.name, problem)

    def rank(self, value: str) -> int:
        """Return the number of a value's axes; ValueError where it is not told."""
        return len(listed(entry(self._metas, value, dict), "sizes"))

    def shape(self, call: Call, argument: str) -> str:
        """Return the name of sizes, those that are computed put among those that are known."""
        sizes = call.sizes(argument)
        name = f"{call.name}/{argument}"
        if not any(isinstance(each, Reference) for each in sizes):
            return self.store(name, [int(each) for each in sizes])
        axis = self.store(f"{name}/axis", [0])
        parts = [
            self.add(f"{name}/{index}", "Unsqueeze", [each, axis])
            if isinstance(each, Reference)
            else self.store(f"{name}/{index}", [each])
            for index, each in enumerate(sizes)
        ]
        return self.add(name, "Concat", parts, attributes={"axis": 0})

    def permuted(self, name: str, value: str, order: Sequence[int]) -> str:
        """Add a transposition, and return the name of what it gives."""
        return self.add(name, "Transpose", [value], attributes={"perm": list(order)})
