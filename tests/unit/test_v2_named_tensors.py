"""Named inputs and outputs, side by side in a time step's values."""

from dataclasses import replace

import numpy as np
import pytest

from lstm_core.runtime.cpu import CpuRuntime
from service.errors import InvalidRequestError
from service.models import describe
from service.signature import TensorSummary
from service.transport.v2.messages import InputTensor
from service.transport.v2.named_tensors import check_outputs, join_inputs, split_outputs
from tests.unit.engines import network

SIGNATURE = replace(
    describe("m", CpuRuntime(network(), 0)),
    input_size=3,
    output_size=3,
    inputs=(TensorSummary("a", 0, 2, None), TensorSummary("b", 2, 1, None)),
    outputs=(TensorSummary("y", 0, 1, None), TensorSummary("z", 1, 2, None)),
)


def inputs(*named):
    """Return inputs by names and shapes."""
    return [InputTensor(name=name, values=np.ones(shape, np.float32)) for name, shape in named]


def test_inputs_lie_in_the_models_order():
    """Not in the request's."""
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[5], [6]], np.float32)
    given = [InputTensor(name="b", values=b), InputTensor(name="a", values=a)]

    assert [[1, 2, 5], [3, 4, 6]] == join_inputs(given, SIGNATURE).tolist()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "got none"),
        ([("a", (1, 2))], "expected a and b once each and no other, got a"),
        ([("a", (1, 2)), ("b", (1, 1)), ("a", (1, 2))], "got a, b, a"),
        ([("a", (1, 2)), ("c", (1, 1))], "got a, c"),
        ([("a", (1, 2)), ("b", (1, 1)), ("c", (1, 1))], "got a, b, c"),
        ([("a", (1, 3)), ("b", (1, 1))], r"expected 2 values .* got \[1, 3\]"),
        ([("a", (1, 2)), ("b", (2, 1))], r"as those of a, got \[2, 1\]"),
        ([("a", (1, 2)), ("b", (1,))], r"as those of a, got \[1\]"),
        ([("a", ()), ("b", ())], r"got \[\]"),
    ],
)
def test_inputs_that_are_not_the_models_are_refused(given, said):
    """With what was expected and what came."""
    with pytest.raises(InvalidRequestError, match=said):
        join_inputs(inputs(*given), SIGNATURE)


def test_outputs_that_are_wanted_come_in_the_order_wanted():
    """All of them where none is named."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)

    for names, expected in (
        ([], {"y": [[0], [3]], "z": [[1, 2], [4, 5]]}),
        (["z", "y"], {"z": [[1, 2], [4, 5]], "y": [[0], [3]]}),
        (["z"], {"z": [[1, 2], [4, 5]]}),
    ):
        check_outputs(names, SIGNATURE)
        split = split_outputs(values, names, SIGNATURE)
        assert list(expected.items()) == [(each.name, each.values.tolist()) for each in split]
        assert all(each.values.flags.c_contiguous for each in split)


@pytest.mark.parametrize(("names", "said"), [(["x"], "has y, z"), (["z", "y", "z"], "2 times")])
def test_outputs_that_are_not_the_models_are_refused(names, said):
    """And those that are named twice."""
    with pytest.raises(InvalidRequestError, match=said):
        check_outputs(names, SIGNATURE)
