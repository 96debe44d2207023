"""Which runtime is chosen: refusals that need no TensorFlow."""

from pathlib import Path

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.kernels import native
from lstm_core.network import Network
from lstm_core.pointwise import Activation
from lstm_core.runtime.base import ZERO_SLOT
from service.runtimes import RuntimeChoice, open_runtime
from tests.unit.native_networks import plain


def test_a_precision_that_a_network_cannot_have_is_an_error_of_its_file():
    """As every reason why a file is not served; nobody has to know the kernel's errors."""
    first, second = plain((4, 4, 4), head=None).layers
    between = Activation(name="between", function="log_softmax")
    mixed = Network("n", 4, (first, between, second), written_by="Somebody")
    with pytest.raises(FormatError, match=r"n\.h5 \(written by Somebody\): precision: bfloat16"):
        open_runtime(Path("n.h5"), 1, RuntimeChoice(precision="bfloat16"), lambda _: mixed)


@pytest.mark.parametrize("kind", ["cpu", "auto", "tensorflow"])
def test_a_file_that_is_not_for_keras_says_so_to_who_asks_for_tensorflow(kind):
    """Others are told what the CPU's runtime has to say."""

    def read(path):
        raise FormatError(str(path), ["g: is a GRU"])

    with pytest.raises(FormatError) as caught:
        open_runtime(Path("g.h5"), 1, RuntimeChoice(kind=kind), read)
    told = ["the TensorFlow runtime reads .keras files only"] if kind == "tensorflow" else []
    assert [*told, "g: is a GRU"] == caught.value.problems


def test_a_runtime_that_is_only_looked_at_can_be_measured():
    """`lstm-service models` compares it with a GPU's, where there is one."""
    runtime, _ = open_runtime(Path("n.h5"), 0, RuntimeChoice(), lambda _: plain((3, 4)))
    inputs = np.zeros((1, 1, 3), np.float32)
    advanced = runtime.advance([ZERO_SLOT], [runtime.allocate()], inputs, None)
    assert advanced.is_state_finite.all()


@pytest.mark.skipif(
    not native.instruction_sets("bfloat16"), reason="a processor without AVX512-BF16"
)
@pytest.mark.parametrize("precisions", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_another_precision_goes_on_with_a_session(precisions):
    """One fingerprint, and outputs as far apart as the precisions are, not as other states."""
    network = plain((3, 16, 16))
    inputs = np.random.default_rng(1).uniform(-1, 1, (1, 12, 3)).astype(np.float32)
    first, second, exact = (
        open_runtime(Path("n.h5"), 4, RuntimeChoice(precision=each), lambda _: network).runtime
        for each in (*precisions, "float32")
    )
    assert first.network.fingerprint == second.network.fingerprint

    first.advance([ZERO_SLOT], [1], inputs[:, :6], None)
    second.write(1, *first.read(1))
    outputs = second.advance([1], [2], inputs[:, 6:], None).outputs

    expected = exact.advance([ZERO_SLOT], [1], inputs, None).outputs[:, 6:]
    anew = exact.advance([ZERO_SLOT], [2], inputs[:, 6:], None).outputs
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=0.01)
    assert np.abs(outputs - expected).max() < 0.1 * np.abs(anew - expected).max()
