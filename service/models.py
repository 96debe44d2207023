"""From model files to engines: what is served, under which name.

The only room besides the engine's that knows `lstm_core`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from lstm_core.runtime.base import Runtime, ServedNetwork
from service.domain import LayerSummary, Signature, StateVector, TensorSummary
from service.engine import Engine
from service.limits import EngineLimits
from service.opening import Lifetimes
from service.runtimes import Chosen, RuntimeChoice, open_runtime
from service.stores.base import SessionStore


class ModelFileError(Exception):
    """A model file cannot be served. The message says which, and everything that is wrong."""


_BUNDLED = Path(__file__).parent / "bundled"


def bundled_models() -> dict[str, Path]:
    """Return the files of the examples that come with the package, by name."""
    return {name: _BUNDLED / f"{name}.keras" for name in ("vowels", "gait")}


def load_engines(
    models: Mapping[str, Sequence[Path]],
    store: SessionStore,
    limits: EngineLimits,
    lifetimes: Lifetimes,
    choice: RuntimeChoice | None = None,
) -> dict[str, Engine]:
    """Read every model and set an engine up for each, in the order given.

    Args:
        models: Files by name, each name's current version first.
        store: For the sessions of all of them.
        limits: For each of them.
        lifetimes: Of their sessions.
        choice: What computes them.

    Raises:
        ModelFileError: A file cannot be served.
    """
    engines: dict[str, Engine] = {}
    for name, paths in models.items():
        *earlier, current = [_open(path, limits.arena_rows, choice) for path in reversed(paths)]
        _check_versions(name, current.runtime.network, [each.runtime.network for each in earlier])
        engines[name] = Engine(
            describe(name, *current),
            current.runtime,
            store,
            limits,
            lifetimes,
            earlier=[
                Engine(
                    describe(name, *each), each.runtime, store, limits, lifetimes, is_alone=False
                )
                for each in earlier
            ],
        )
    return engines


def _check_versions(name: str, current: ServedNetwork, earlier: Sequence[ServedNetwork]) -> None:
    """Refuse versions that callers could not be served by without knowing which one it is.

    Raises:
        ModelFileError: One takes or gives something else, or is there twice.
    """
    fingerprints = {current.fingerprint}
    for network in earlier:
        if network.fingerprint in fingerprints:
            raise ModelFileError(f"two files of model {name!r} hold the same model")
        fingerprints.add(network.fingerprint)
        for what in ("input_size", "output_size", "vocabulary"):
            now, then = getattr(current, what), getattr(network, what)
            if now != then:
                raise ModelFileError(
                    f"the versions of model {name!r} differ in {what}: {now} and {then}; serve the"
                    " earlier one under a name of its own"
                )


def read_signature(name: str, path: Path, choice: RuntimeChoice | None = None) -> Signature:
    """Return what a file takes and gives, and what would compute it.

    Args:
        name: To serve it under.
        path: The file.
        choice: What may compute it.

    Raises:
        ModelFileError: The file cannot be served.
    """
    return describe(name, *_open(path, 0, choice))


def _open(path: Path, capacity: int, choice: RuntimeChoice | None) -> Chosen:
    try:
        return open_runtime(path, capacity, choice or RuntimeChoice(), read_keras)
    except FormatError as error:
        raise ModelFileError(str(error)) from error


def describe(name: str, runtime: Runtime, reason: str = "") -> Signature:
    """Return the signature of a runtime's network under a name, with the kernels chosen.

    Args:
        name: To serve it under.
        runtime: Computes it.
        reason: Why this runtime.
    """
    network = runtime.network
    layers = []
    for layer in runtime.layers:
        dispatch = layer.dispatch
        layers.append(
            LayerSummary(
                name=layer.name,
                kind=layer.kind,
                output_size=layer.output_size,
                kernel=None if dispatch is None else dispatch.kernel,
                device=None if dispatch is None else dispatch.device,
                reason=None if dispatch is None else dispatch.reason,
            )
        )
    inputs, outputs = (
        tuple(TensorSummary(part.name, part.offset, part.size, part.vocabulary) for part in parts)
        for parts in (network.inputs, network.outputs)
    )
    return Signature(
        model=name,
        fingerprint=network.fingerprint,
        input_size=network.input_size,
        output_size=network.output_size,
        vocabulary=network.vocabulary,
        returns_sequences=network.returns_sequences,
        state_layout=tuple(
            StateVector(part.layer, part.role, part.size) for part in network.state_layout
        ),
        streaming_obstacles=tuple(network.streaming_obstacles),
        layers=tuple(layers),
        inputs=inputs,
        outputs=outputs,
        runtime=runtime.kind,
        runtime_reason=reason,
    )
