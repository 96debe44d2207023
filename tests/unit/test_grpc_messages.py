"""The messages of gRPC: those of the protocol, by a client that is not ours."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from service.transport.grpc import messages

GRPC = Path(messages.__file__).parent


@pytest.fixture(scope="module")
def theirs():
    """The messages and services of tritonclient, by name."""
    # In the same process: ours are in a pool of their own.
    from tritonclient.grpc import model_config_pb2, service_pb2

    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    named: dict[str, Any] = {}
    for file in files:
        for kind in (file.message_types_by_name, file.services_by_name, file.enum_types_by_name):
            named.update(kind)
    return named


def all_messages(descriptors):
    """Yield messages, and those within them."""
    for descriptor in descriptors:
        yield descriptor
        yield from all_messages(descriptor.nested_types)


def within(named, descriptor):
    """Return the message of another file that has the same full name."""
    outer = descriptor.containing_type
    if outer is None:
        return named[descriptor.name]
    return within(named, outer).nested_types_by_name[descriptor.name]


def kind_of(field):
    """Return what a field holds."""
    held = field.message_type or field.enum_type
    return field.type, field.is_repeated, held and held.full_name


def test_every_message_has_the_names_and_numbers_of_the_protocol(theirs):
    """And the types; it may have fewer fields."""
    ours = list(all_messages(messages.DESCRIPTOR.message_types_by_name.values()))
    assert 50 < len(ours)
    for descriptor in ours:
        told = within(theirs, descriptor).fields_by_name
        for field in descriptor.fields:
            where = field.full_name
            assert (where, told[field.name].number) == (where, field.number)
            assert (where, kind_of(told[field.name])) == (where, kind_of(field))


def test_every_enumeration_is_the_protocols(theirs):
    """By names and numbers."""
    for name, ours in messages.DESCRIPTOR.enum_types_by_name.items():
        told = theirs[name].values_by_name
        assert {value.name: value.number for value in ours.values} == {
            name: value.number for name, value in told.items()
        }


def test_the_service_has_the_methods_of_the_protocol(theirs):
    """All but those for shared memory, tracing and logging."""

    def methods(service):
        return {
            (m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming)
            for m in service.methods
        }

    name = "GRPCInferenceService"
    ours = methods(messages.DESCRIPTOR.services_by_name[name])
    missing = {method for method, *_ in methods(theirs[name]) - ours}
    assert not ours - methods(theirs[name])
    assert {
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    } == missing


def test_what_is_compiled_is_what_is_written(tmp_path):
    """`make protos` has been called since the last change."""
    out, types = tmp_path / "out", tmp_path / "inference_pb2.pyi"
    options = [f"--proto_path={GRPC}", f"--descriptor_set_out={out}", f"--pyi_out={tmp_path}"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run([*protoc, *options, "inference.proto"], check=True, timeout=60)
    fresh = FileDescriptorSet.FromString(out.read_bytes())
    assert fresh == FileDescriptorSet.FromString((GRPC / "inference.binpb").read_bytes())
    assert types.read_text() == (GRPC / "messages.pyi").read_text()
