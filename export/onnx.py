"""torch -> ONNX: the encoder and the denoiser as two graphs with a dynamic batch and everything else static."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mpi_fast.training.checkpoint import Checkpoint

OPSET = 20


def encoder_onnx(checkpoint: Checkpoint) -> bytes:
    """``encoder.onnx``: condition (F, 2, ny, nx) -> features (F, c, ny, nx)."""
    condition = torch.ones(2, 2, *checkpoint.grid)
    return _export(checkpoint.network.encoder, {"condition": condition}, "features", "frames")


def score_onnx(checkpoint: Checkpoint) -> bytes:
    """``score.onnx``: image (B, 3, ny, nx), sigma (B,), features (B, c, ny, nx) -> denoised (B, 1, ny, nx)."""
    features = checkpoint.network.config.features
    inputs = {
        "image": torch.ones(2, 3, *checkpoint.grid),
        "sigma": torch.ones(2),
        "features": torch.zeros(2, features, *checkpoint.grid),
    }
    return _export(checkpoint.network.denoiser, inputs, "denoised", "batch")


def _export(module: nn.Module, inputs: Mapping[str, Tensor], output: str, batch: str) -> bytes:
    """One module as a checked ONNX model whose first axes are all called ``batch``."""
    axis = torch.export.Dim(batch, min=1)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({0: axis} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # the exporter's stack traces name files of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the exporter's own progress reports and its remarks about absent libraries off the screen."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
