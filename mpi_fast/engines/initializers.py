"""The weights of an ONNX file, read without the ``onnx`` package."""

import math

import numpy as np
from numpy.typing import NDArray

from mpi_fast.engines.external_data import fields
from mpi_fast.errors import ModelError

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # fields of a model and of a graph
_INPUT, _OUTPUT = 1, 2  # of a node
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # of a tensor
_FLOAT = 1


def initializers(content: bytes, where: str) -> dict[str, NDArray[np.float32]]:
    """Tensors of float32 that a serialised ONNX model holds, by name, in the order in which it lists them.

    Raises
    ------
    ModelError
        For content that is not an ONNX model, and for truncated tensors.
    """
    found: dict[str, NDArray[np.float32]] = {}
    try:
        graphs = [part for number, part in fields(memoryview(content)) if number == _GRAPH]
        if not graphs:
            raise ValueError("no graph")
        tensors = [part for graph in graphs for number, part in fields(_bytes(graph)) if number == _INITIALIZER]
        for tensor in tensors:
            dims, entries = [], {}
            for number, value in fields(_bytes(tensor)):
                if number == _DIMS and isinstance(value, int):
                    dims.append(value)
                else:
                    entries[number] = value
            if entries.get(_TYPE) == _FLOAT and _RAW in entries:
                raw = np.frombuffer(_bytes(entries[_RAW]), np.float32)
                if raw.size != math.prod(dims):
                    raise ValueError("a tensor of another size than its shape")
                found[bytes(_bytes(entries[_NAME])).decode()] = raw.reshape(dims)
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"{where}: not an ONNX model whose weights can be read: {error}") from error
    return found


def network_parameters(content: bytes, where: str) -> dict[str, NDArray[np.float32]]:
    """Parameters of the network that a graph was exported from, by their names there.

    The exporter keeps the names, except for weights of dense layers, which it transposes. Such a weight is found as the
    factor of the product to which the layer's bias, which has a name, is added. Split convolutions are joined.

    Raises
    ------
    ModelError
        As `initializers`, and for a dense layer without weight.
    """
    found = initializers(content, where)
    named = _with_whole_heads(
        {
            name.removeprefix("network."): array
            for name, array in found.items()
            if name.startswith("network.") and name.endswith((".weight", ".bias"))
        }
    )
    factors = _factors_before(content)
    for name in [name for name in named if name.endswith(".bias")]:
        weight = name.removesuffix("bias") + "weight"
        if weight not in named:
            factor = found.get(factors.get(f"network.{name}", ""))
            if factor is None or factor.shape[1:] != named[name].shape:
                raise ModelError(f"{where}: no weight for {name}")
            named[weight] = factor.T
    return named


def _with_whole_heads(named: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Join the last convolutions of blocks, which `export.depthwise_heads` splits into filters and a sum."""
    whole = {}
    for name, array in named.items():
        block, _, rest = name.partition(".head.")
        if rest == "0.weight":  # (channels, 1, 3, 3)
            whole[f"{block}.head.weight"] = array.swapaxes(0, 1)
        elif rest == "1.bias":
            whole[f"{block}.head.bias"] = array
        elif rest != "1.weight":  # ones
            whole[name] = array
    return whole


def _factors_before(content: bytes) -> dict[str, str]:
    """Map from summands of a product, such as a dense layer's bias, to the name of the product's second factor."""
    graphs = [part for number, part in fields(memoryview(content)) if number == _GRAPH]
    nodes = [part for graph in graphs for number, part in fields(_bytes(graph)) if number == _NODE]
    second: dict[str, str] = {}
    factors: dict[str, str] = {}
    for node in nodes:  # in the order of computation
        given, made = _names(node, _INPUT), _names(node, _OUTPUT)
        if len(given) == 2:
            second[made[0]] = given[1]
            factors |= {one: second[other] for one, other in (given, given[::-1]) if other in second}
    return factors


def _names(node: int | memoryview, field: int) -> list[str]:
    return [bytes(_bytes(value)).decode() for number, value in fields(_bytes(node)) if number == field]


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value
