"""What the Open Inference Protocol tells of the server and its models, as documents.

The documents have the names of the protocol's messages, so that JSON and protobuf are filled from
the same. Knows no transport.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from service import __version__
from service.histograms import Tally
from service.signature import Signature, TensorSummary
from service.transport.v2.catalog import Catalog, ServedModel

Document = dict[str, Any]

SERVER_NAME = "lstm-service"
PLATFORM = "lstm_service"
EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "model_configuration",
    "model_repository",
)
MAX_BATCH_ROWS = 1024
"""What models without sequences are said to take at once; what they take is limited by time steps,
all rows together."""
_NEVER_US = 2**53 - 1
"""How long a sequence may be idle where nothing ends it, some 285 years."""


def server_metadata() -> Document:
    """Return `ServerMetadataResponse`: name, version, extensions."""
    return {"name": SERVER_NAME, "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel) -> Document:
    """Return `ModelMetadataResponse`: name, versions, platform, inputs, outputs."""
    signature = model.engine.signature
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [
            {
                "name": part.name,
                "datatype": input_datatype(part),
                "shape": [-1, *_input_dimensions(part, signature)],
            }
            for part in signature.inputs
        ],
        "outputs": [
            {
                "name": part.name,
                "datatype": "FP32",
                "shape": [-1, *_output_dimensions(part, signature)],
            }
            for part in signature.outputs
        ],
    }


def input_datatype(part: TensorSummary) -> str:
    """Return the datatype that an input is said to have; others are converted."""
    return "FP32" if part.vocabulary is None else "INT32"


def model_config(model: ServedModel) -> Document:
    """Return `ModelConfig`; in `ModelConfigResponse` it is the member `config`."""
    signature = model.engine.signature
    config: Document = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        # A request of a sequence is a batch of one; the engine makes its own of many sequences.
        "max_batch_size": MAX_BATCH_ROWS if signature.streaming_obstacles else 1,
        "input": [
            {
                "name": part.name,
                "data_type": f"TYPE_{input_datatype(part)}",
                "format": "FORMAT_NONE",
                "dims": _input_dimensions(part, signature),
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
            }
            for part in signature.inputs
        ],
        "output": [
            {
                "name": part.name,
                "data_type": "TYPE_FP32",
                "dims": _output_dimensions(part, signature),
                "label_filename": "",
                "is_shape_tensor": False,
            }
            for part in signature.outputs
        ],
        "model_transaction_policy": {"decoupled": False},
    }
    if not signature.streaming_obstacles:
        config["sequence_batching"] = {
            "max_sequence_idle_microseconds": _NEVER_US,
            "control_input": [],
            "state": [],
            "direct": {"max_queue_delay_microseconds": 0, "minimum_slot_utilization": 0.0},
        }
    return config


def model_statistics(models: Sequence[ServedModel]) -> Document:
    """Return `ModelStatisticsResponse`: `model_stats`, one entry a model.

    Requests are those of this protocol. Executions are the kernel's calls, whoever asked for them:
    one may take steps of sequences that came by several protocols.
    """
    return {"model_stats": [_statistics(model) for model in models]}


def repository_index(catalog: Catalog, *, is_ready_only: bool) -> list[Document]:
    """Return the member `models` of `RepositoryIndexResponse`, which is the whole over HTTP."""
    return [entry._asdict() for entry in catalog.index(is_ready_only=is_ready_only)]


def _input_dimensions(part: TensorSummary, signature: Signature) -> list[int]:
    """Return an input's shape without the batch: a time step's, or a whole sequence's."""
    return [-1, part.size] if signature.streaming_obstacles else [part.size]


def _output_dimensions(part: TensorSummary, signature: Signature) -> list[int]:
    has_time = signature.streaming_obstacles and signature.returns_sequences
    return [-1, part.size] if has_time else [part.size]


def _statistics(model: ServedModel) -> Document:
    statistics = model.statistics
    # Bytes are read before a request is counted, and written behind its answer.
    count = statistics.num_succeeded
    batches: defaultdict[int, Tally] = defaultdict(Tally)
    for calls_s in (
        *(engine.kernel_calls_s for engine in model.engine.all_versions),
        statistics.predictions_s,
    ):
        for num_rows, tally in calls_s.items():
            batches[num_rows].count += tally.count
            batches[num_rows].total += tally.total
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": int(statistics.last_at * 1000),
        "inference_count": statistics.num_inferences,
        "execution_count": sum(tally.count for tally in batches.values()),
        "inference_stats": {
            "success": _duration(count, statistics.queue_s + statistics.compute_s),
            "fail": _duration(statistics.failed_s.count, statistics.failed_s.total),
            "queue": _duration(count, statistics.queue_s),
            "compute_input": _duration(count, 0.0),
            "compute_infer": _duration(count, statistics.compute_s),
            "compute_output": _duration(count, 0.0),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [
            {
                "batch_size": num_rows,
                "compute_input": _duration(tally.count, 0.0),
                "compute_infer": _duration(tally.count, tally.total),
                "compute_output": _duration(tally.count, 0.0),
            }
            for num_rows, tally in sorted(batches.items())
        ],
    }


def _duration(count: int, seconds: float) -> Document:
    return {"count": count, "ns": int(seconds * 1e9)}
