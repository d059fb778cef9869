"""torch -> ONNX: modules as checked graphs of standard operators, constants folded, independent of this machine."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnxscript import opset20 as op
from onnxscript import optimizer
from torch import Tensor, nn

from mpi_fast.errors import ModelError

OPSET = 20
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Graph:
    """An exported model.

    Attributes
    ----------
    model : onnx.ModelProto
        Simplified model.
    nodes_before : int
        Number of operators before simplification, without constants.
    """

    model: onnx.ModelProto
    nodes_before: int

    @property
    def content(self) -> bytes:
        """The file."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content


def to_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Mapping[str, Mapping[int, str]]
) -> Graph:
    """One module as a simplified, checked graph.

    Parameters
    ----------
    module : nn.Module
        Module in float32 or float16; it makes all casts itself.
    inputs : dict
        Examples by input name, in the order of ``forward``.
    outputs : sequence of str
        Names of the outputs, different from torch functions, after which the exporter names inner values.
    axes : dict
        ``{input: {axis: name}}``: the axes that are not fixed.
    """
    dims = {name: torch.export.Dim(name, min=1) for named in axes.values() for name in named.values()}
    free = {given: {axis: dims[name] for axis, name in named.items()} for given, named in axes.items()}
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(free.get(given, {}) for given in inputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
            custom_translation_table={torch.ops.aten.asinh.default: asinh},
        )
        assert program is not None
        model = program.model_proto
        return Graph(checked(optimizer.optimize(model)), count(model))


def asinh(x):  # type: ignore[no-untyped-def]
    """The inverse hyperbolic sine, because ONNX Runtime computes the operator Asinh without vector instructions.

    Absolute errors are those of float32; squares of numbers beyond 1e19 would overflow.
    """
    return op.Sign(x) * op.Log(op.Abs(x) + op.Sqrt(x * x + 1.0))


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's notes from a model, and check it and its shapes.

    Raises
    ------
    ModelError
        For non-standard operators.
    """
    for node in model.graph.node:  # the exporter's stack traces name files of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign or model.functions:
        raise ModelError(f"the exported graph holds operators that are not plain ONNX: {', '.join(foreign)}")
    onnx.checker.check_model(model, full_check=True)
    return model


def count(model: onnx.ModelProto) -> int:
    """Number of operators of a graph, without constants."""
    return sum(node.op_type != "Constant" for node in model.graph.node)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporter's progress reports and its remarks about missing libraries."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
