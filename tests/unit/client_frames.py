"""The service's frames, and a client's stream that has received the first one."""

import json
import struct

from service.client.network import Lost
from tests.unit.client_script import Script, make_stream, stepped

CUT = Lost("cut")
BINARY = struct.pack("<1f", 0.25)
"""The reply to a binary step."""


def frame(**document):
    """Return a frame of the service."""
    return json.dumps(document)


def hello(position=0, epoch=None, window=4, output_size=1):
    """Return a first frame."""
    sizes = {"input_size": 1, "output_size": output_size, "replay_window": window}
    return frame(type="hello", position=position, epoch=epoch, **sizes)


def reply(position, **options):
    """Return the reply to a step."""
    return frame(**stepped(position, **options))


def opened(core, **options):
    """Return a stream that has received its first frame."""
    stream = make_stream(core)
    Script(None, hello(core.position, core.epoch, **options)).run(stream.__aenter__())
    return stream


def send(stream, *values):
    """Send steps, and return the frames."""
    script = Script()
    for value in values:
        script.run(stream.send([value]))
    return script.sent
