"""The Open Inference Protocol over gRPC, with health and reflection: the extra `grpc`."""

try:
    import grpc as _grpc  # noqa: F401 - looked for first, to tell what is missing
    import grpc_health as _health  # noqa: F401
    import grpc_reflection as _reflection  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"gRPC needs {error.name}: pip install 'lstm-service[grpc]'", name=error.name
    ) from None
