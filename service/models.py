"""From model files to engines: what is served, under which name.

The only room besides the engine's that knows `lstm_core`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from lstm_core.network import Network
from lstm_core.runtime.cpu import CpuRuntime
from service.domain import LayerSummary, Signature, StateVector
from service.engine import Engine
from service.limits import EngineLimits
from service.opening import Lifetimes
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
) -> dict[str, Engine]:
    """Read every model and set an engine up for each, in the order given.

    Args:
        models: Files by name, each name's current version first.
        store: For the sessions of all of them.
        limits: For each of them.
        lifetimes: Of their sessions.

    Raises:
        ModelFileError: A file cannot be served.
    """
    engines: dict[str, Engine] = {}
    for name, paths in models.items():
        *earlier, current = [CpuRuntime(_read(path), limits.arena_rows) for path in reversed(paths)]
        _check_versions(name, current.network, [runtime.network for runtime in earlier])
        engines[name] = Engine(
            describe(name, current),
            current,
            store,
            limits,
            lifetimes,
            earlier=[
                Engine(describe(name, runtime), runtime, store, limits, lifetimes, is_alone=False)
                for runtime in earlier
            ],
        )
    return engines


def _check_versions(name: str, current: Network, earlier: Sequence[Network]) -> None:
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


def read_signature(name: str, path: Path) -> Signature:
    """Return what a file takes and gives, and which kernels would run it.

    Args:
        name: To serve it under.
        path: The file.

    Raises:
        ModelFileError: The file cannot be served.
    """
    network = _read(path)
    return describe(name, CpuRuntime(network, 0))


def _read(path: Path) -> Network:
    try:
        return read_keras(path)
    except FormatError as error:
        raise ModelFileError(str(error)) from error


def describe(name: str, runtime: CpuRuntime) -> Signature:
    """Return the signature of a runtime's network under a name, with the kernels chosen."""
    network = runtime.network
    layers = []
    for layer, output_size in zip(network.layers, network.output_sizes, strict=True):
        dispatch = runtime.dispatches.get(layer)
        layers.append(
            LayerSummary(
                name=layer.name,
                kind="LSTM" if layer in network.recurrent else type(layer).__name__,
                output_size=output_size,
                kernel=None if dispatch is None else dispatch.kernel,
                device=None if dispatch is None else dispatch.device,
                reason=None if dispatch is None else dispatch.reason,
            )
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
        input_name=network.input_name,
        output_name=network.output_name,
    )
