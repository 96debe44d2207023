"""From model files to engines: what is served, under which name.

The only room besides the engine's that knows `lstm_core`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.read import format_at, read_network
from lstm_core.formats.write import write_network
from lstm_core.kernels.native import Precision
from lstm_core.network import Network
from lstm_core.pointwise import Affine
from lstm_core.runtime.cpu import CpuRuntime
from service.domain import LayerSummary, Signature, StateVector
from service.engine import Engine
from service.limits import EngineLimits
from service.model_config import ModelConfig, WarmUp
from service.opening import Lifetimes
from service.stores.base import SessionStore


class ModelFileError(Exception):
    """A model file cannot be served. The message says which, and everything that is wrong."""


_BUNDLED = Path(__file__).parent / "bundled"


def bundled_models() -> dict[str, Path]:
    """Return the files of the examples that come with the package, by name."""
    return {name: _BUNDLED / f"{name}.keras" for name in ("vowels", "gait")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model that is read and could be served.

    Attributes:
        signature: What it takes and gives.
        runtime: Computes it.
        limits: What its engine may take on.
    """

    signature: Signature
    runtime: CpuRuntime
    limits: EngineLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoader:
    """Makes engines of model files, which share a store.

    Attributes:
        store: For the sessions of all of them.
        limits: For each of them, where its own do not say otherwise.
        lifetimes: Of their sessions.
        kernel_threads: Most threads of one call of `advance` or `predict`.
        precision: Of the LSTMs' products, `float32` or `bfloat16`.
    """

    store: SessionStore
    limits: EngineLimits
    lifetimes: Lifetimes
    kernel_threads: int = 1
    precision: Precision = "float32"

    def prepare(
        self, name: str, path: Path, version: str = "1", config: ModelConfig | None = None
    ) -> Prepared:
        """Read a model, reserve its arena and warm it up, on whatever thread.

        Args:
            name: To serve it under.
            path: The file.
            version: Its version.
            config: What is said beside it.

        Raises:
            ModelFileError: It cannot be served.
        """
        config = config or ModelConfig()
        try:
            network = _normalised(_read(path), config)
            _check_config(network, config)
            limits = _limits(self.limits, config)
            runtime = CpuRuntime(
                network,
                limits.arena_rows,
                num_threads=self.kernel_threads,
                precision=self.precision,
            )
        except (SpecError, ValueError) as error:
            raise ModelFileError(f"{path}: {error}") from error
        _warm_up(runtime, config.warm_up)
        signature = replace(
            describe(name, runtime),
            version=version,
            labels=config.labels,
            feedback=config.feedback,
        )
        return Prepared(signature=signature, runtime=runtime, limits=limits)

    def engine(
        self, prepared: Prepared, *, earlier: Sequence[Engine] = (), is_alone: bool = True
    ) -> Engine:
        """Return the engine of a model that is prepared; see `Engine`."""
        return Engine(
            prepared.signature,
            prepared.runtime,
            self.store,
            prepared.limits,
            self.lifetimes,
            earlier=earlier,
            is_alone=is_alone,
        )

    def engines(self, models: Mapping[str, Sequence[Path]]) -> dict[str, Engine]:
        """Read every model and set an engine up for each, in the order given.

        Args:
            models: Files by name, each name's current version first.

        Raises:
            ModelFileError: A file cannot be served.
        """
        engines: dict[str, Engine] = {}
        for name, paths in models.items():
            *earlier, current = [
                self.prepare(name, path, str(number))
                for number, path in enumerate(reversed(paths), 1)
            ]
            check_version(current.signature, [each.signature for each in earlier])
            engines[name] = self.engine(
                current, earlier=[self.engine(each, is_alone=False) for each in earlier]
            )
        return engines


def check_version(new: Signature, others: Sequence[Signature]) -> None:
    """Refuse versions that callers could not be served by without knowing which one it is.

    Raises:
        ModelFileError: One takes or gives something else, or is there twice.
    """
    for other in others:
        if new.fingerprint == other.fingerprint:
            raise ModelFileError(
                f"two files of model {new.model!r} hold the same model: versions {other.version}"
                f" and {new.version}"
            )
        for what in ("input_size", "output_size", "vocabulary"):
            now, then = getattr(new, what), getattr(other, what)
            if now != then:
                raise ModelFileError(
                    f"the versions of model {new.model!r} differ in {what}: {now} and {then}; serve"
                    " the earlier one under a name of its own"
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
        return read_network(path)
    except FormatError as error:
        raise ModelFileError(str(error)) from error


def _normalised(network: Network, config: ModelConfig) -> Network:
    """Return a network that takes and gives numbers in the callers' units."""
    before, after = config.normalisation.inputs, config.normalisation.outputs
    layers = network.layers
    if before is not None:
        if network.vocabulary is not None:
            raise ValueError("normalisation.inputs: the model takes integers")
        _check_count("normalisation.inputs", network.input_size, len(before.mean))
        layers = (_affine("normalisation", before.mean, 1 / np.asarray(before.std), 0), *layers)
    if after is not None:
        _check_count("normalisation.outputs", network.output_size, len(after.mean))
        layers = (*layers, _affine("denormalisation", 0, after.std, after.mean))
    if layers is network.layers:
        return network
    return Network(
        network.name,
        network.input_size,
        layers,
        input_name=network.input_name,
        output_name=network.output_name,
        written_by=network.written_by,
    )


def _affine(name: str, *values: npt.ArrayLike) -> Affine:
    center, scale, offset = (np.asarray(value, np.float32) for value in values)
    return Affine(name=name, center=center, scale=scale, offset=offset)


def _check_config(network: Network, config: ModelConfig) -> None:
    """Check that what is said beside a model fits it.

    Raises:
        ValueError: It does not.
    """
    if config.labels is not None:
        _check_count("labels", network.output_size, len(config.labels))
    if config.feedback is not None:
        _check_count("feedback", network.input_size, len(config.feedback))
        for index in config.feedback:
            if index is not None and index >= network.output_size:
                raise ValueError(f"feedback: there is no output {index}")


def _check_count(what: str, expected: int, given: int) -> None:
    if given != expected:
        raise ValueError(f"{what}: expected {expected} values, got {given}")


def _limits(limits: EngineLimits, config: ModelConfig) -> EngineLimits:
    own = config.limits.model_dump(exclude_none=True)
    return replace(limits, **own)


def _warm_up(runtime: CpuRuntime, warm_up: WarmUp) -> None:
    """Run a few batches on zeros, from the zero slot into slots that are free again afterwards."""
    network = runtime.network
    num_steps = warm_up.steps
    for wanted in warm_up.rows:
        num_rows = min(wanted, runtime.num_free)
        inputs = np.zeros((num_rows, num_steps, network.input_size), np.float32)
        if network.streaming_obstacles:
            runtime.predict(inputs)
            continue
        slots = [runtime.allocate() for _ in range(num_rows)]
        runtime.advance([0] * num_rows, slots, inputs, None)
        for slot in reversed(slots):
            runtime.free(slot)


def file_format(path: Path) -> str:
    """Return what a file is, and what wrote it where that is known.

    Raises:
        ModelFileError: It is no model.
    """
    try:
        name = format_at(path).name
    except FormatError as error:
        raise ModelFileError(str(error)) from error
    try:
        writer = read_network(path).written_by
    except FormatError as error:
        writer = error.written_by
    return name if writer is None else f"{name}, written by {writer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What became of a file.

    Attributes:
        fingerprint: Of the model that was read.
        new_fingerprint: Of the model as it was written. Where that is another, sessions of the one
            do not belong to the other.
    """

    fingerprint: str
    new_fingerprint: str


def convert(source: Path, target: Path) -> Conversion:
    """Write a model in another format, and read it back.

    Args:
        source: A file of any format.
        target: Where to, with the suffix `.keras` or `.safetensors`. Replaced at once if it is
            there, or left as it was.

    Raises:
        ModelFileError: The one cannot be read, or the other not written.
        OSError: The target cannot be written.
    """
    try:
        network = read_network(source)
        write_network(network, target)
        new_fingerprint = read_network(target).fingerprint
    except FormatError as error:
        raise ModelFileError(str(error)) from error
    return Conversion(fingerprint=network.fingerprint, new_fingerprint=new_fingerprint)


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
