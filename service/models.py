"""From model files to engines: what is served, under which name.

Knows `lstm_core`, as the engine's rooms do and those of files and runtimes beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.read import read_network
from lstm_core.runtime.base import Runtime
from service.configured import check_config, normalised, run_warm_up
from service.engine import Engine
from service.limits import EngineLimits
from service.model_config import ModelConfig, Normalisation
from service.model_files import ModelFileError
from service.opening import Lifetimes
from service.runtimes import RuntimeChoice, open_runtime
from service.signature import LayerSummary, Signature, StateVector, TensorSummary
from service.stores.base import SessionStore

_ONLY_CPU = "normalisation is the CPU runtime's only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model that is read and could be served.

    Attributes:
        signature: What it takes and gives.
        runtime: Computes it.
        limits: What its engine may take on.
    """

    signature: Signature
    runtime: Runtime
    limits: EngineLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoader:
    """Makes engines of model files, which share a store.

    Attributes:
        store: For the sessions of all of them.
        limits: For each of them, where its own do not say otherwise.
        lifetimes: Of their sessions.
        choice: What may compute them.
    """

    store: SessionStore
    limits: EngineLimits
    lifetimes: Lifetimes
    choice: RuntimeChoice = field(default_factory=RuntimeChoice)

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
        choice, limits = self.choice, self.limits
        is_normalised = config.normalisation != Normalisation()
        if is_normalised:
            if choice.kind == "tensorflow":
                raise ModelFileError(f"{path}: {_ONLY_CPU}")
            choice = replace(choice, kind="cpu")
        try:
            limits = replace(limits, **config.limits.model_dump(exclude_none=True))
            runtime, reason = open_runtime(
                path,
                limits.arena_rows,
                choice,
                lambda path: normalised(read_network(path), config),
            )
            check_config(runtime.network, config)
        except FormatError as error:
            raise ModelFileError(str(error)) from error
        except (SpecError, ValueError) as error:
            raise ModelFileError(f"{path}: {error}") from error
        except MemoryError as error:
            raise ModelFileError(
                f"{path}: there is no room in memory for it and {limits.arena_rows} states at hand"
                f" ({error}); lower --arena-rows"
            ) from error
        if is_normalised and self.choice.kind == "auto":
            reason = _ONLY_CPU
        run_warm_up(runtime, config.warm_up)
        signature = replace(
            describe(name, runtime, reason),
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
            versions: list[Prepared] = []
            for number, path in enumerate(reversed(paths), 1):
                version = self.prepare(name, path, str(number))
                check_version(version.signature, [each.signature for each in versions])
                versions.append(version)
            *earlier, current = versions
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
        now, then = _surface(new), _surface(other)
        for what in now:
            if now[what] != then[what]:
                raise ModelFileError(
                    f"the versions of model {new.model!r} differ in {what}: {now[what]} and"
                    f" {then[what]}; serve the earlier one under a name of its own"
                )


def _surface(signature: Signature) -> dict[str, object]:
    """Return what callers of a session see of the version that it belongs to."""
    surface: dict[str, object] = {
        "input_size": signature.input_size,
        "output_size": signature.output_size,
        "vocabulary": signature.vocabulary,
        "whether they have sessions": not signature.streaming_obstacles,
    }
    # The name of an only one says nothing: Keras gives each layer of a process another number.
    for what, parts in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        if len(parts) > 1:
            surface[what] = [f"{part.name} ({part.size})" for part in parts]
        else:
            surface[what] = len(parts)
    return surface


def read_signature(name: str, path: Path, choice: RuntimeChoice) -> Signature:
    """Return what a file takes and gives, and what would compute it.

    Args:
        name: To serve it under.
        path: The file.
        choice: What may compute it.

    Raises:
        ModelFileError: The file cannot be served.
    """
    try:
        return describe(name, *open_runtime(path, 0, choice, read_network))
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
