"""The messages of `inference.proto` as classes; `messages.pyi`, which protoc wrote, types them.

They are built when this is imported, in a pool of their own: no version of generated code has to
fit the protobuf that is installed, and another package's classes of the same names, such as those
of `tritonclient`, may be in the same process.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FILE = files(__package__).joinpath("inference.binpb").read_bytes()


def _build() -> None:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(_FILE).file:
        pool.Add(file)
    descriptor = pool.FindFileByName("inference.proto")
    names = globals()
    names["DESCRIPTOR"] = descriptor
    for name, message in descriptor.message_types_by_name.items():
        names[name] = GetMessageClass(message)


_build()
