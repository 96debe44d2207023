"""Tensors of every datatype: what float32 holds comes through exactly, and nothing else does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.transport.v2.datatypes import (
    BinaryTensor,
    from_bytes,
    from_values,
    to_bytes,
    to_values,
)

DTYPES = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
SIZES = {"BF16": 2} | {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()}


def values_of(datatype):
    """Return a strategy of values of a datatype, as Python has them."""
    dtype = np.dtype(DTYPES[datatype])
    if datatype == "BOOL":
        return st.booleans()
    if dtype.kind == "f":
        width: Any = 8 * dtype.itemsize
        return st.floats(width=width, allow_nan=False, allow_infinity=False)
    info = np.iinfo(dtype)
    return st.integers(int(info.min), int(info.max))


def is_float32(value):
    """Tell whether float32 holds a number; Python compares integers and floats exactly."""
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value


@pytest.mark.parametrize("datatype", DTYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_values_come_through_exactly_or_not_at_all(datatype, data):
    """In binary and written out alike."""
    values = data.draw(st.lists(values_of(datatype), min_size=1, max_size=4))
    shape = [len(values)]
    blob = np.array(values, DTYPES[datatype]).tobytes()
    fit = all(is_float32(value) for value in values)

    for read, given_values in ((from_bytes, blob), (from_values, values)):
        if fit:
            got = read("x", datatype, shape, given_values)
            assert np.float32 == got.dtype
            assert [float(value) for value in values] == got.tolist()
        else:
            with pytest.raises(InvalidRequestError, match="no number of float32"):
                read("x", datatype, shape, given_values)


@settings(max_examples=40)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_bf16_is_rounded_to_the_nearest(values):
    """As TensorFlow's type for NumPy rounds."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.array(values, np.float32).astype(ml_dtypes.bfloat16)
    exact = bits.astype(np.float32)
    np.testing.assert_array_equal(exact, from_bytes("x", "BF16", [len(values)], bits.tobytes()))
    if np.isfinite(exact).all():
        np.testing.assert_array_equal(exact, from_values("x", "BF16", [len(values)], values))
    else:
        with pytest.raises(InvalidRequestError, match="within BF16"):
            from_values("x", "BF16", [len(values)], values)


@settings(max_examples=40)
@given(
    st.lists(st.floats(-65000, 65000), min_size=1, max_size=5), st.sampled_from(["FP16", "FP32"])
)
def test_written_numbers_are_rounded_to_what_they_are_said_to_be(values, datatype):
    """JSON knows no float32."""
    expected = np.array(values, DTYPES[datatype]).astype(np.float32)
    np.testing.assert_array_equal(expected, from_values("x", datatype, [len(values)], values))


def test_nested_lists_are_those_of_the_shape():
    """Flat ones are as good; anything else is no tensor."""
    nested = np.arange(24.0).reshape(2, 3, 4)
    for given_values in (nested.tolist(), nested.ravel().tolist()):
        got = from_values("x", "FP32", [2, 3, 4], given_values)
        np.testing.assert_array_equal(nested, got)
    for bad in (
        nested.tolist()[:1],
        nested.reshape(3, 2, 4).tolist(),
        nested.reshape(6, 4).tolist(),
        [*nested.tolist(), 1.0],
        [[nested.tolist()]],
        [[[1.0] * 4, [1.0] * 4, [1.0] * 3 + [[]]]] * 2,
    ):
        with pytest.raises(InvalidRequestError):
            from_values("x", "FP32", [2, 3, 4], bad)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP32", [True]),
        ("FP32", ["1"]),
        ("FP32", [None]),
        ("FP32", [1e39]),
        ("FP32", [10**400]),
        ("FP16", [65520.0]),
        ("FP64", [10**400]),
        ("INT32", [1.0]),
        ("INT32", [True]),
        ("INT32", [2**31]),
        ("UINT8", [-1]),
        ("UINT64", [2**64]),
        ("BOOL", [1]),
        ("BYTES", ["a"]),
        ("fp32", [1.0]),
        ("", [1.0]),
    ],
)
def test_values_that_a_datatype_has_not(datatype, values):
    """The tensor is named."""
    with pytest.raises(InvalidRequestError, match=r"^x: "):
        from_values("x", datatype, [1], values)


@pytest.mark.parametrize(
    "shape",
    [
        *([-1], [-1, -1], [2, -3], [1] * 9, [10**30], [2**63, 2**63]),
        *([0], [0, 3], [0, 2**62], [2**40, 0, 2**40], [0, 10**30]),
    ],
    ids=str,
)
def test_shapes_that_no_tensor_has(shape):
    """However large, nothing is reserved for them; and of no values there is no tensor."""
    for blob, values in ((b"\0" * 4, [1.0]), (b"", [])):
        with pytest.raises(InvalidRequestError, match=r"^x: "):
            from_bytes("x", "FP32", shape, blob)
        with pytest.raises(InvalidRequestError, match=r"^x: "):
            from_values("x", "FP32", shape, values)


@pytest.mark.parametrize("datatype", SIZES)
def test_the_length_of_bytes_is_looked_at(datatype):
    """A byte more or less is no tensor."""
    size = SIZES[datatype]
    assert 6 * size == BinaryTensor("x", datatype, [2, 3]).num_bytes
    assert (2, 3) == from_bytes("x", datatype, [2, 3], b"\0" * 6 * size).shape
    for wrong in (0, 6 * size - 1, 6 * size + 1):
        with pytest.raises(InvalidRequestError, match="expected"):
            from_bytes("x", datatype, [2, 3], b"\0" * wrong)


def test_any_byte_but_zero_is_true():
    """As C has it."""
    assert [0.0, 1.0, 1.0] == from_bytes("x", "BOOL", [3], b"\0\1\xff").tolist()


def test_outputs_are_written_little_endian_and_row_major():
    """Little-endian and row-major, whatever the array is in memory."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert values.tobytes() == to_bytes(values.T.copy().T) == to_bytes(values.astype(">f4"))
    assert [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] == to_values(values)
