"""One version of a model in a repository: where it lies, whether it is served, and why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.model_config import FILE_NAME, ModelConfigError, read_model_config
from service.model_files import ModelFileError
from service.models import ModelLoader, Prepared, check_version
from service.repository_files import Stamp, model_file
from service.signature import Signature

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Version:
    """A version's directory.

    Attributes:
        directory: `NAME/VERSION`.
        stamp: Of its files when it was last looked at for loading.
        state: Whether it is served.
        reason: Why it is not; else empty.
        fingerprint: Of what is loaded; None where nothing is.
    """

    directory: Path
    stamp: Stamp
    state: Literal["READY", "LOADING", "UNAVAILABLE"] = "LOADING"
    reason: str = ""
    fingerprint: str | None = None

    @property
    def number(self) -> str:
        """Its number, a decimal one."""
        return self.directory.name

    def read(self, name: str, loader: ModelLoader, others: Sequence[Signature]) -> Prepared | None:
        """Read it on whatever thread; where that fails, its reason says why.

        Args:
            name: Of the model.
            loader: Prepares it.
            others: The versions that it will be served beside.

        Returns:
            What can be served; None where it cannot be.
        """
        self.state, self.reason = "LOADING", ""
        try:
            config = read_model_config(self.directory / FILE_NAME)
            prepared = loader.prepare(name, model_file(self.directory), self.number, config)
            check_version(prepared.signature, others)
        except (ModelFileError, ModelConfigError, OSError, MemoryError) as error:
            self.state = "UNAVAILABLE"
            # It is told to callers, whom the way to the repository does not concern.
            reason = str(error).replace(f"{self.directory.parents[1]}/", "")
            self.reason = reason or type(error).__name__
            log.warning("model %s: version %s cannot be served: %s", name, self.number, self.reason)
            return None
        except Exception:  # the guard: no file takes another model down, nor who follows them
            self.state, self.reason = "UNAVAILABLE", "a fault of ours, which the log tells"
            log.exception("model %s: version %s cannot be served", name, self.number)
            return None
        self.state, self.fingerprint = "READY", prepared.signature.fingerprint
        return prepared
