"""Cost of a graph: operators, parameters, arithmetic, memory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mpi_fast.export.torch_to_onnx import Graph, count


def statistics(graph: Graph, flops: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Facts of a graph for one frame.

    Parameters
    ----------
    graph : Graph
        The exported model.
    flops : int
        See `count_flops`.
    sizes : dict
        Lengths of axes that are not fixed, by name; by default one.
    """
    nodes = [node.op_type for node in graph.model.graph.node if node.op_type != "Constant"]
    return {
        "nodes_before": graph.nodes_before,
        "nodes": count(graph.model),
        "operators": dict(Counter(nodes).most_common()),
        "parameters": sum(prod(tensor.dims) for tensor in graph.model.graph.initializer),
        "flops": flops,
        "activation_bytes": activation_bytes(graph.model, sizes),
    }


def count_flops(module: nn.Module, inputs: Iterable[Tensor]) -> int:
    """Floating-point operations of convolutions and matrix products, two per multiplication with addition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def activation_bytes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """Most bytes alive at once in a batch of one, if every operator writes a new tensor; without the weights.

    Axes that are not fixed have the given sizes, one by default.
    """
    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]
    for value in single.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = sizes.get(axis.dim_param, 1)
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    held = {value.name: _bytes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = sum(held[value.name] for value in graph.input)
    most = alive
    for index, node in enumerate(graph.node):
        alive += sum(held.get(name, 0) for name in node.output)
        most = max(most, alive)
        alive -= sum(held.get(name, 0) for name in {*node.input, *node.output} if last.get(name, index) == index)
    return most


def _bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    size = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return int(size * prod(axis.dim_value for axis in kind.shape.dim))
