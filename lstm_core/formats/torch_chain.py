"""From a PyTorch state dict and the order of its modules, told or known, to a chain of layers."""

from __future__ import annotations

import json

from lstm_core.errors import SpecError
from lstm_core.formats.torch_layers import READERS, Json, input_size_of
from lstm_core.formats.torch_state import StateDict
from lstm_core.network import Layer

_MAX_LAYERS = 1000


def guess_chain(state: StateDict, document_name: str) -> list[dict[str, Json]]:
    """Return the chain of a state dict that can only be one.

    Args:
        state: The state dict.
        document_name: Where a document would be, for messages.

    Raises:
        SpecError: It can be several. The message shows a document to begin with.
    """
    lstms = state.lstms()
    if state.entries is not None and list(state.entries) != [""]:
        raise SpecError("layers", _ask_for_document(state, document_name))
    others = [module for module in state.modules if module not in lstms]
    if len(lstms) == 1 and not state.without_weights:
        chain = [{"lstm": lstms[0]}]
        if not others:
            return chain
        if len(others) == 1 and set(state.modules[others[0]]) == {"weight", "bias"}:
            fits_before, fits_behind = _places(state, lstms[0], others[0])
            if fits_before != fits_behind:
                linear = [{"linear": others[0]}]
                return linear + chain if fits_before else chain + linear
    raise SpecError("layers", _ask_for_document(state, document_name))


def _places(state: StateDict, lstm: str, linear: str) -> tuple[bool, bool]:
    """Return whether a Linear fits before an LSTM, and whether behind it."""
    inputs = state.shape(lstm, "weight_ih_l0")[-1:]
    outputs = state.shape(lstm, "weight_hh_l0")[-1:]
    if "weight_hh_l0_reverse" in state.modules[lstm]:
        outputs = tuple(2 * size for size in outputs)
    shape = state.shape(linear, "weight")
    return len(shape) == 2 and shape[:1] == inputs, len(shape) == 2 and shape[1:] == outputs


def _ask_for_document(state: StateDict, document_name: str) -> str:
    """Return what is missing, with a document to begin with."""
    layers: list[dict[str, str]] = []
    lstms = set(state.lstms())
    hint = ""
    for module in state.order:
        if state.entries is not None:
            # The file tells what its modules are; what has no entry does nothing.
            layers += [state.entries[module]] if module in state.entries else []
        elif module in lstms:
            layers.append({"lstm": module})
        elif module in state.without_weights:
            layers.append({"activation": f"<the function of {module}>"})
            hint = (
                "; write each function's name, as relu, in its place, and leave out what does"
                " nothing here, as dropout"
            )
        else:
            is_behind_linear = bool(layers) and "linear" in layers[-1]
            layers += [{"activation": "relu"}] * is_behind_linear + [{"linear": module}]
    what, options = "the state dict", ""
    if state.entries is not None:
        # `eps`, `negative_slope` and the like stand in its code.
        what = "the program"
        options = ", nor their options where those are not PyTorch's defaults"
    return (
        f"{what} of {', '.join(state.order):.300} does not tell how these follow each other and"
        f" which functions stand between them{options}; say so in {document_name}"
        f"{hint}: for instance {json.dumps({'layers': layers})}"
    )


def read_chain(state: StateDict, chain: Json) -> tuple[int, list[Layer], list[str]]:
    """Return the input size, the layers that can be read, and a sentence for each that cannot.

    Args:
        state: The arrays.
        chain: The document's list of layers, not checked yet.
    """
    layers: list[Layer] = []
    problems: list[str] = []
    input_size = 0
    if not isinstance(chain, list) or len(chain) > _MAX_LAYERS:
        return 0, [], ["layers: is no list of layers"]
    used: set[str] = set()
    for index, entry in enumerate(chain):
        try:
            kind, target, options = _entry(entry, index)
            if kind != "activation" and target in used:
                # It would take memory each time.
                problems.append(f"{target}: is named twice")
                continue
            used.add(target)
            read = READERS[kind](state, target, options)
            if not layers and not problems:
                input_size = input_size_of(read[0])
            layers += read
        except SpecError as error:
            problems.append(str(error))
    return input_size, layers, problems


def _entry(entry: Json, index: int) -> tuple[str, str, dict[str, Json]]:
    """Return a document's entry as its kind, the module or function, and the options."""
    if not isinstance(entry, dict):
        raise SpecError(f"layers[{index}]", "is no JSON object")
    kinds = entry.keys() & READERS.keys()
    if len(kinds) != 1:
        raise SpecError(f"layers[{index}]", f"must have one of {', '.join(READERS)}")
    kind = kinds.pop()
    target = entry[kind]
    if not isinstance(target, str):
        raise SpecError(f"layers[{index}]", f"{kind} must be a name")
    return kind, target, {name: value for name, value in entry.items() if name != kind}
