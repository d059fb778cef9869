"""Find, before building, parts of an ONNX graph that TensorRT would refuse or compute in another precision."""

from collections.abc import Iterable
from typing import Any

import onnx

from mpi_fast.tensorrt_library import TensorRT, tidy

# TensorRT's parser accepts float64 but computes in float32, which differs from the graph.
TYPES = {getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "INT32", "INT64", "INT8", "BOOL")}


def preflight(trt: TensorRT, content: bytes) -> list[str]:
    """All reasons against building an engine from this file, with names of nodes and tensors.

    Parameters
    ----------
    trt : TensorRT
        Package that builds the engine.
    content : bytes
        An ONNX file.
    """
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    except Exception as error:  # protobuf's and onnx's errors have no common base class of their own
        return [f"not an ONNX graph ({error})"]
    problems = [*_opset(model), *_operators(trt, model), *_types(model), *_axes(model)]
    network = builder(trt).create_network()
    return problems or parse(trt, network, content)[1]


def builder(trt: TensorRT) -> Any:
    """Create a builder.

    Raises
    ------
    MPIFastError
        If the package cannot work here; the data-centre package needs a GPU even to build.
    """
    trt.listen()
    try:
        return trt.module.Builder(trt.logger)
    except (TypeError, RuntimeError) as error:  # a null pointer from the library
        raise trt.failure("no engine can be built on this machine (is there a GPU and its driver?)") from error


def parse(trt: TensorRT, network: Any, content: bytes) -> tuple[Any, list[str]]:
    """Fill a network from an ONNX file; returns the parser, which owns the weights until the build, and its errors."""
    trt.listen()
    parser = trt.module.OnnxParser(network, trt.logger)
    if parser.parse(content):
        return parser, []
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return parser, [
        f"node {error.node_name() or 'unknown'} ({error.node_operator() or 'unknown'}): {tidy(error.desc())}"
        for error in errors
    ]


def _opset(model: onnx.ModelProto) -> list[str]:
    known = onnx.defs.onnx_opset_version()
    found = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return [f"opset {version}: expected 9 to {known}" for version in found if not 9 <= version <= known]


def _operators(trt: TensorRT, model: onnx.ModelProto) -> list[str]:
    parser = trt.module.OnnxParser(builder(trt).create_network(), trt.logger)
    foreign = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    unknown = [node for node in model.graph.node if not parser.supports_operator(node.op_type)]
    return [
        *(f"node {node.name}: operator {node.domain}.{node.op_type} is not plain ONNX" for node in foreign),
        *(f"node {node.name}: TensorRT has no operator {node.op_type}" for node in unknown if node not in foreign),
    ]


def _types(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    values: Iterable[onnx.ValueInfoProto] = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    return [
        f"tensor {name}: {onnx.TensorProto.DataType.Name(kind)}, which TensorRT does not compute in"
        for name, kind in types.items()
        if kind not in TYPES
    ]


def _axes(model: onnx.ModelProto) -> list[str]:
    return [
        f"input {value.name}: axis {axis} is not fixed; only that of the batch, the first, may be free"
        for value in model.graph.input
        for axis, size in enumerate(value.type.tensor_type.shape.dim)
        if axis > 0 and not size.HasField("dim_value")
    ]
