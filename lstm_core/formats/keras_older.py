"""From a config of Keras 1 or 2, tf_keras included, to the one that a `.keras` file of Keras 3 has.

Owns the names, defaults and wirings of those days. Knows no variable and no layer's arithmetic, but
for one function: `hard_sigmoid` was `clip(0.2 x + 0.5, 0, 1)` then, which is `hard_sigmoid_v1` in
what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstm_core.formats.keras_config import CONTAINERS, MERGES, Json

_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Model": "Functional",
    "TimeDistributedDense": "Dense",
}
_ARGUMENTS = {
    "InputLayer": {"batch_input_shape": "batch_shape", "input_dtype": "dtype"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}
_KERAS_1_CLASSES = {"BatchNormalization": "BatchNormalization of Keras 1"}
"""Its releases differ in what they kept of a batch, so that it is not read."""
_KERAS_1_ARGUMENTS = {
    "Dense": {"output_dim": "units", "bias": "use_bias"},
    "LSTM": {"output_dim": "units", "inner_activation": "recurrent_activation"},
    "TimeDistributedDense": {"output_dim": "units", "bias": "use_bias"},
}
_OPERATIONS = frozenset(
    {"Any", "ExpandDims", "GetItem", "LogicalOr", "NotEqual", "OnesLike", "ZerosLike"}
)
"""What Keras 3 computes in graphs and has no layer for. Of those that it has both of, the layer is
told by its argument `trainable`."""
_WITHOUT_MASK = frozenset({"Normalization", "Rescaling"})
"""Layers that Keras 2 gives no mask on behind, while Keras 3 does."""
_FUNCTIONS = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "concat": "Concatenate",
    "math.add": "Add",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "math.multiply": "Multiply",
    "math.subtract": "Subtract",
    "math.truediv": "Divide",
    "nn.relu": "Relu",
    "nn.sigmoid": "Sigmoid",
    "math.sigmoid": "Sigmoid",
    "math.tanh": "Tanh",
    "nn.tanh": "Tanh",
}
"""Functions of TensorFlow in a graph, as the operations of Keras 3."""


def is_older(version: str) -> bool:
    """Return whether a version of Keras wrote configs of this kind."""
    return version.partition(".")[0] in {"1", "2"}


def modernised(model: Mapping[str, Any], version: str) -> Json:
    """Return a model's config as a `.keras` file of Keras 3 has it.

    Args:
        model: Of a model, or of one layer; what is no config comes back as it is.
        version: Of the Keras that wrote it. Keras 3 leaves modules out in its `.h5` files.
    """
    config = model.get("config")
    original = model.get("class_name")
    kind = _CLASSES.get(str(original), str(original))
    if kind in CONTAINERS and isinstance(config, dict | list):
        # A Sequential model was a list of layers before Keras 2.2.3.
        name = model.get("name", "sequential")
        content = {"name": name, "layers": config} if isinstance(config, list) else config
        unfolded = _container(str(kind), content, version)
        return {**model, "module": "keras", "class_name": kind, "config": unfolded}
    if version.startswith("1."):
        kind = _KERAS_1_CLASSES.get(str(kind), kind)
    modern = {**model, "class_name": kind}
    module = str(model.get("module", "keras"))
    if ">" in str(original):
        modern["registered_name"] = original
    elif "module" not in model and _is_operation(str(kind), config, version):
        modern["module"] = "keras.src.ops.numpy"
    elif module.partition(".")[0] in {"keras", "tf_keras", "tensorflow"}:
        modern["module"] = "keras.layers"
    if isinstance(config, dict):
        modern["config"] = _arguments(str(original), config, version)
    if kind == "ThresholdedReLU":
        modern["class_name"] = "ReLU"
    return modern


def _is_operation(kind: str, config: Json, version: str) -> bool:
    is_layer = isinstance(config, dict) and "trainable" in config
    return kind in _OPERATIONS or (kind in MERGES and not is_layer and not is_older(version))


def _container(kind: str, config: Mapping[str, Any], version: str) -> dict[str, Any]:
    layers = config.get("layers")
    if not isinstance(layers, list):
        return dict(config)
    modern = [modernised(each, version) if isinstance(each, dict) else each for each in layers]
    if not is_older(version):
        return {**config, "layers": modern}
    if kind == "Sequential":
        shape = _declared_shape(layers[0] if layers else None) or config.get("build_input_shape")
        if shape is not None and layers[0].get("class_name") != "InputLayer":
            modern.insert(0, _input_layer(shape))
    else:
        modern = [_called(each) if isinstance(each, dict) else each for each in modern]
        config = {**config, "counts_models": True}
    return {**config, "layers": modern}


def _declared_shape(layer: Json) -> Json:
    """Return the input shape that the first layer of a Sequential model declares, or None."""
    config = layer.get("config") if isinstance(layer, dict) else None
    while isinstance(config, list) or (isinstance(config, dict) and "layers" in config):
        inner = config if isinstance(config, list) else config["layers"]
        first = inner[0] if isinstance(inner, list) and inner else None
        config = first.get("config") if isinstance(first, dict) else None
    return config.get("batch_input_shape") if isinstance(config, dict) else None


def _input_layer(shape: Json) -> dict[str, Any]:
    config = {"name": "input", "batch_shape": shape, "dtype": "float32"}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config}


def _arguments(kind: str, config: Mapping[str, Any], version: str) -> dict[str, Any]:
    if not is_older(version):
        return {**config, **_parts(config, version)}
    names = dict(_ARGUMENTS.get(kind, {}))
    if version.startswith("1."):
        names |= _KERAS_1_ARGUMENTS.get(kind, {})
    modern = {names.get(name, name): value for name, value in config.items()}
    modern |= _parts(modern, version)
    for name in ("activation", "recurrent_activation"):
        if modern.get(name) == "hard_sigmoid":
            modern[name] = "hard_sigmoid_v1"
    if kind == "Bidirectional" and "backward_layer" not in modern:
        modern["backward_layer"] = _reversed(modern.get("layer"))
    if kind in _WITHOUT_MASK:
        modern["drops_mask"] = True
    if kind in MERGES:
        modern["joins_masks"] = "all"
    policy = modern.pop("dtype", None) or "float32"
    if isinstance(policy, dict) and policy.get("class_name") in ("Policy", "PolicyV1"):
        policy = {**policy, "class_name": "DTypePolicy"}
    return {**modern, "dtype": policy}


def _parts(config: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return the layers and cells that are arguments."""
    parts = {
        name: modernised(config[name], version)
        for name in ("layer", "backward_layer", "cell")
        if isinstance(config.get(name), dict)
    }
    cells = config.get("cells")
    if isinstance(cells, list):
        parts["cells"] = [modernised(x, version) if isinstance(x, dict) else x for x in cells]
    return parts


def _reversed(layer: Json) -> Json:
    """Return the other direction's layer of a `Bidirectional` that names one only."""
    if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
        return None
    config = layer["config"]
    go_backwards = config.get("go_backwards", False)
    is_known = isinstance(go_backwards, bool)
    turned = {**config, "go_backwards": not go_backwards if is_known else go_backwards}
    return {**layer, "config": turned}


def _called(layer: dict[str, Any]) -> dict[str, Any]:
    """Return a layer with its calls as Keras 3 writes them; of a function, as an operation."""
    nodes = _nodes(layer.get("inbound_nodes"))
    config = layer.get("config")
    function = config.get("function") if isinstance(config, dict) else None
    operation = _FUNCTIONS.get(str(function))
    is_function = layer.get("class_name") in ("SlicingOpLambda", "TFOpLambda")
    if not is_function or not isinstance(config, dict) or operation is None:
        return {**layer, "inbound_nodes": nodes}
    config = {**config, "drops_mask": True}
    for node in nodes:
        given = {name: value for name, value in node["kwargs"].items() if value is not None}
        config |= {name: given.pop(name) for name in ("axis",) if name in given}
        second = [given.pop(name) for name in ("y", "slice_spec") if name in given]
        node["args"] += [_argument(each) for each in second]
        node["kwargs"] = given
    return {
        **layer,
        "module": "keras.src.ops.numpy",
        "class_name": operation,
        "config": config,
        "inbound_nodes": nodes,
    }


def _argument(value: Json) -> Json:
    """Return an argument of a function: a tensor, slices, or what it is."""
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[0], str):
        return _tensor(value)
    return [
        {"class_name": "__slice__", "config": each} if isinstance(each, dict) else each
        for each in value
    ]


def _nodes(nodes: Json) -> list[dict[str, Any]]:
    """Return a layer's calls as Keras 3 writes them.

    A call was a list of `[layer, node, output number]`, arguments by keyword behind them, one for
    each tensor of the first argument.
    """
    calls = []
    for node in nodes if isinstance(nodes, list) else []:
        tensors = node if isinstance(node, list) else []
        if tensors and isinstance(tensors[0], str):
            tensors = [tensors]
        args = [_tensor(each) for each in tensors if isinstance(each, list)]
        kwargs = {
            name: value
            for each in tensors
            if isinstance(each, list) and len(each) > 3 and isinstance(each[3], dict)
            for name, value in each[3].items()
        }
        calls.append({"args": args if len(args) == 1 else [args], "kwargs": kwargs})
    return calls


def _tensor(source: list[Json]) -> Json:
    if source[:2] == ["_CONSTANT_VALUE", -1] and len(source) > 2:
        return source[2]
    history = source[:3]
    return {"class_name": "__keras_tensor__", "config": {"keras_history": history}}
