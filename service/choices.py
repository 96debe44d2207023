"""From settings to what may compute the models."""

from __future__ import annotations

from service.runtimes import RuntimeChoice
from service.settings import Settings

RUNTIME_SETTINGS = ("runtime", "keras_modules", "tf32", "kernel_threads", "precision")
"""Those that the choice depends on."""


def runtime_choice(settings: Settings) -> RuntimeChoice:
    """Return what an operator has said about runtimes."""
    return RuntimeChoice(
        kind=settings.runtime,
        allow_tf32=settings.tf32,
        keras_modules=settings.keras_modules,
        kernel_threads=settings.kernel_threads,
        precision=settings.precision,
    )
