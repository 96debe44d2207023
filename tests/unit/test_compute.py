"""Which thread computes."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime
from service.compute import Compute
from service.domain import ForecastRequest, SessionKey
from tests.unit.native_networks import plain


class Placed(CpuRuntime):
    """Says that it runs on a device, and keeps the names of the threads that it ran on."""

    def __init__(self, device):
        super().__init__(plain((3, 4)), 4)
        self.device = device
        self.threads = []

    @property
    def layers(self):
        """The layers, each on the device."""
        return [
            layer._replace(dispatch=layer.dispatch and replace(layer.dispatch, device=self.device))
            for layer in super().layers
        ]

    def advance(self, *arguments):
        """Keep the thread's name, and compute."""
        self.threads.append(threading.current_thread().name)
        return super().advance(*arguments)

    def forecast(self, *arguments):
        """Keep the thread's name, and compute."""
        self.threads.append(threading.current_thread().name)
        return super().forecast(*arguments)


@pytest.mark.parametrize(("device", "second"), [("cpu", "MainThread"), ("gpu", "advance-m_0")])
def test_a_gpu_that_waits_for_memory_holds_no_event_loop_up(device, second):
    """A CPU's short calls run where they are asked for, once it is known that they are short."""
    runtime = Placed(device)

    async def twice():
        compute = Compute(runtime, "m", inline_us=1e9)
        for _ in range(2):
            inputs = np.zeros((1, 1, 3), np.float32)
            await compute.advance([ZERO_SLOT], [1], inputs, [1], None)
        compute.close()

    asyncio.run(asyncio.wait_for(twice(), 10))

    assert ["advance-m_0", second] == runtime.threads


def test_a_forecast_is_not_begun_in_the_event_loop():
    """The last outputs of the state, which it begins with, are a call of the device too."""
    runtime = Placed("gpu")
    key = SessionKey("default", "m", "c")
    request = ForecastRequest(key=key, num_steps=2, first_input=None, feedback=np.arange(3))

    async def forecast():
        compute = Compute(runtime, "m", inline_us=1e9)
        outputs = await compute.forecast(request, np.zeros(8, np.float32), np.ones(1, np.bool_))
        compute.close()
        return outputs

    outputs = asyncio.run(asyncio.wait_for(forecast(), 10))

    assert (2, 5) == outputs.shape
    assert ["forecast-m_0"] == runtime.threads
