"""Reads a `.keras` file of Keras 3 or tf_keras into a network, without Keras and TensorFlow.

The numbers are those of Keras 3.15, or of tf_keras 2.21 for a file of Keras 2, in float32. A model
of another precision (`mixed_float16`, `bfloat16`, `float64`) keeps its weights, rounded to float32,
and computes in float32, so it agrees with Keras only within that precision. `stateful`, `unroll`
and a fixed batch size or sequence length are not part of a network; a model that was saved stateful
starts from zeros.

In Keras 3.15 none of the layers that are read here drops a mask, nor does a nested model, whatever
its warning says. Other releases were not compared.
"""

from __future__ import annotations

import os

from lstm_core.formats.archive import open_archive
from lstm_core.formats.keras_network import build_network
from lstm_core.formats.keras_numbered_weights import NumberedWeights
from lstm_core.network import Network


def read_keras(path: str | os.PathLike[str]) -> Network:
    """Read a model, Sequential or functional.

    Args:
        path: A file that `model.save("….keras")` of Keras 3, tf_keras or Keras 2 from 2.12 on
            wrote. No code in it is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: There is no such file, it is another format or damaged, or it holds something
            that cannot be served; then `problems` names every such layer and why.
    """
    with open_archive(path) as archive:
        weights = NumberedWeights(archive.store, archive.keras_version)
        return build_network(archive.path, archive.config, archive.keras_version, weights.place)
