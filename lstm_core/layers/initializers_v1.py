"""Initializers as configs of TensorFlow 1 and of tf_keras have them, for Keras 3.

Knows functions and their names in a layer's config. Knows no layer.
"""

from __future__ import annotations

from typing import Any

import keras

_OLD_PACKAGES = ("tensorflow", "tf_keras")


def get_initializer_v1(identifier: Any) -> Any:
    """Return the initializer that `identifier` names, or None for None.

    Args:
        identifier: A name, a function, None, what `serialize_initializer_v1` gave, or an entry of
            an old config, whose `dtype` says nothing: a layer asks for the dtype that it wants.

    Raises:
        ValueError: There is no such initializer.
    """
    if isinstance(identifier, dict) and hasattr(
        keras.initializers, str(identifier.get("class_name"))
    ):
        return keras.initializers.get(_without_dtype(identifier))
    return keras.initializers.get(identifier)


def serialize_initializer_v1(initializer: Any) -> Any:
    """Return what `get_initializer_v1` makes an initializer of the same kind of.

    One of TensorFlow 1 or of tf_keras comes back as Keras 3's of that name, which draws from the
    same distribution.
    """
    cls = type(initializer)
    if cls.__module__.partition(".")[0] in _OLD_PACKAGES and hasattr(initializer, "get_config"):
        return _without_dtype({"class_name": cls.__name__, "config": initializer.get_config()})
    return keras.initializers.serialize(initializer)


def _without_dtype(serialized: dict[str, Any]) -> dict[str, Any]:
    config = dict(serialized.get("config") or {})
    config.pop("dtype", None)
    return {**serialized, "config": config}
