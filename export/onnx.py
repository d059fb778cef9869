"""torch -> ONNX: modules as checked graphs of plain operators, constants folded, free of traces of this machine."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mpi_fast.errors import ModelError
from mpi_fast.export.shared import Shared, calls, examples, insert
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.training.checkpoint import Checkpoint
from mpi_fast.training.half import half

OPSET = 20
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Graph:
    """An exported model.

    Attributes
    ----------
    model : onnx.ModelProto
        Simplified.
    nodes_before : int
        Operators, constants not counted, as the exporter left them.
    """

    model: onnx.ModelProto
    nodes_before: int

    @property
    def content(self) -> bytes:
        """The file."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content


def encoder_onnx(checkpoint: Checkpoint) -> Graph:
    """``encoder.onnx``: condition (F, CONDITION_CHANNELS, ny, nx) -> features (F, c, ny, nx)."""
    condition = torch.ones(2, CONDITION_CHANNELS, *checkpoint.grid)
    return to_onnx(checkpoint.network.encoder, {"condition": condition}, ["features"], {"condition": {0: "frames"}})


def score_onnx(checkpoint: Checkpoint, precision: str = "fp32") -> Graph:
    """``score.onnx``: image (B, 3, ny, nx), sigma (B,), features (B, c, ny, nx) -> denoised (B, 1, ny, nx)."""
    denoiser = checkpoint.network.denoiser
    inputs = score_inputs(checkpoint, 2)
    axes = {name: {0: "batch"} for name in inputs}
    return to_onnx(half(denoiser) if precision == "fp16" else denoiser, inputs, ["denoised"], axes)


def score_inputs(checkpoint: Checkpoint, batch: int) -> dict[str, Tensor]:
    """Inputs of the denoiser, for examples."""
    features = checkpoint.network.config.features
    return {
        "image": torch.ones(batch, 3, *checkpoint.grid),
        "sigma": torch.ones(batch),
        "features": torch.zeros(batch, features, *checkpoint.grid),
    }


def to_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Mapping[str, Mapping[int, str]]
) -> Graph:
    """One module as a simplified, checked graph; what it holds of `shared.Shared` is traced once.

    Parameters
    ----------
    module : nn.Module
        In float32 or float16; casts are its own business.
    inputs : dict
        Examples, by the names that the graph's inputs get, in the order of ``forward``.
    outputs : sequence of str
        Names of the outputs. Not those of torch's functions: the exporter names inner values after these.
    axes : dict
        ``{input: {axis: name}}``: the axes that are not fixed.
    """
    with quiet():
        return _export(module, inputs, outputs, axes, examples(module, inputs.values()), {})


def _export(
    module: nn.Module,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    parts: Mapping[str, tuple[Shared, Mapping[str, Any]]],
    done: dict[str, Graph],
) -> Graph:
    """`to_onnx` of a module that calls parts, given with examples of their inputs; those exported already are done."""
    dims = {name: torch.export.Dim(name, min=1) for named in axes.values() for name in named.values()}
    free = {given: {axis: dims[name] for axis, name in named.items()} for given, named in axes.items()}
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=[name for given, value in inputs.items() for name in _names(given, value)],
        output_names=list(outputs),
        dynamic_shapes=tuple(free.get(given) or tree_map(lambda _: {}, value) for given, value in inputs.items()),
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    before, called = count(model), calls(model)
    for name, times in called.items():
        if name not in done:
            part, given = parts[name]
            done[name] = _export(part.module, given, part.outputs, part.axes, parts, done)
        before += times * (done[name].nodes_before - 1)
    model = insert(optimizer.optimize(model), {name: done[name].model for name in called})
    return Graph(checked(model), before)


def _names(given: str, value: Any) -> list[str]:
    """Names for the tensors of an input: its own, or numbered ones for a list."""
    return [given] if isinstance(value, Tensor) else [f"{given}_{n}" for n in range(len(tree_leaves(value)))]


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Clean a model of the exporter's notes, and check it and its shapes.

    Raises
    ------
    ModelError
        For operators that only some runtimes have.
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
    """Operators of a graph, without constants."""
    return sum(node.op_type != "Constant" for node in model.graph.node)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own progress reports and its remarks about absent libraries off the screen."""
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
