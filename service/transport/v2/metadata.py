"""What the Open Inference Protocol tells of the server and its models, as documents.

The documents have the names of the protocol's messages, so that JSON and protobuf are filled from
the same. Knows no transport.
"""

from __future__ import annotations

from typing import Any

from service.transport.v2.catalog import Catalog, ServedModel

Document = dict[str, Any]


def server_metadata() -> Document:
    """Return `ServerMetadataResponse`: name, version, extensions."""
    raise NotImplementedError


def model_metadata(model: ServedModel) -> Document:
    """Return `ModelMetadataResponse`: name, versions, platform, inputs, outputs."""
    raise NotImplementedError


def model_config(model: ServedModel) -> Document:
    """Return `ModelConfig`; in `ModelConfigResponse` it is the member `config`."""
    raise NotImplementedError


def model_statistics(models: list[ServedModel]) -> Document:
    """Return `ModelStatisticsResponse`: `model_stats`, one entry a model."""
    raise NotImplementedError


def repository_index(catalog: Catalog, *, is_ready_only: bool) -> list[Document]:
    """Return the member `models` of `RepositoryIndexResponse`, which is the whole over HTTP."""
    raise NotImplementedError
