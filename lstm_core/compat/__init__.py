"""The layers of earlier releases, under the names of the releases: `compat.v1` and `compat.tf14`.

Everything here is a lazy attribute: importing it does not import TensorFlow.
"""

from __future__ import annotations

from lstm_core.compat import tf14, v1

__all__ = ["tf14", "v1"]
