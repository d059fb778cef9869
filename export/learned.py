"""``python -m mpi_fast.export.learned dernet.pt``: a network to compare with becomes one ONNX file, or nothing."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import torch
import typer
from torch import Tensor, nn

from mpi_fast.atomic import atomic_path
from mpi_fast.console import console, friendly
from mpi_fast.errors import ModelError
from mpi_fast.export.onnx import OPSET, _quiet
from mpi_fast.methods.learned import KIND
from mpi_fast.training.checkpoint import Trained, load_trained

TOLERANCE = 1e-4  # relative to the largest value of the original's output
FRAMES = (1, 5)  # numbers of frames on which both are compared


class OneScanner(nn.Module):
    """A network for G scanners with K frames each, called with the K frames of one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Each input and the output without its first axis."""
        out: Tensor = self.network(*(value[None] for value in inputs))[0]
        return out


def learned_onnx(trained: Trained) -> bytes:
    """The network as `graph`, equal to the original.

    Raises
    ------
    ModelError
        When it is a score network, or the exported network differs by more than `TOLERANCE`.
    """
    if trained.method == "score":
        raise ModelError("a score network: to export it, python -m mpi_fast.export")
    content = graph(trained)
    worst = difference(trained, content)
    if not worst <= TOLERANCE:
        raise ModelError(
            f"the exported network is not the original: relative difference {worst:.2g}, allowed {TOLERANCE:g}; "
            "nothing was written"
        )
    return content


def graph(trained: Trained) -> bytes:
    """The network as a checked ONNX model of dynamic frames F and rank R.

    Inputs: y (F, R), noise (F,), singular_values (R,), basis (N, R), and for ``deq`` before them state (F, 2 N + R).
    Output: ``image`` (F, N), or the ``next`` state.
    """
    module = OneScanner(trained.network).eval()
    voxels = trained.grid[0] * trained.grid[1]
    frames, rank = torch.export.Dim("frames", min=1), torch.export.Dim("rank", min=2)
    shapes = {
        "state": {0: frames, 1: 2 * voxels + rank},
        "y": {0: frames, 1: rank},
        "noise": {0: frames},
        "singular_values": {0: rank},
        "basis": {1: rank},
    }
    inputs = example(trained, voxels // 3, 3, seed=0)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["next" if trained.method == "deq" else "image"],
            dynamic_shapes={"inputs": tuple(shapes[name] for name in inputs)},
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
    facts = {"grid": trained.grid, "provenance": trained.provenance}
    metadata = {"kind": KIND, "method": trained.method, **{name: json.dumps(value) for name, value in facts.items()}}
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def example(trained: Trained, rank: int, frames: int, seed: int) -> dict[str, Tensor]:
    """Signals of random images through a random scanner, by input name."""
    rng = torch.Generator().manual_seed(seed)
    voxels = trained.grid[0] * trained.grid[1]
    basis, _ = torch.linalg.qr(torch.randn(voxels, rank, generator=rng))
    singular_values = torch.logspace(1, -1, rank)
    noise = torch.logspace(-1, 0.5, frames)
    images = torch.rand(frames, voxels, generator=rng)
    y = images @ basis * singular_values + noise[:, None] * torch.randn(frames, rank, generator=rng)
    inputs = {"y": y, "noise": noise, "singular_values": singular_values, "basis": basis}
    if trained.method == "deq":
        multipliers = 0.1 * torch.randn(frames, voxels + rank, generator=rng)
        inputs = {"state": torch.cat([images, multipliers], dim=1), **inputs}
    return inputs


def difference(trained: Trained, content: bytes) -> float:
    """Largest difference of an exported network from the original, relative to the original's largest value."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    module, worst = OneScanner(trained.network).eval(), 0.0
    voxels = trained.grid[0] * trained.grid[1]
    for rank in (2, voxels // 2):
        for frames in FRAMES:
            inputs = example(trained, rank, frames, seed=rank + frames)
            with torch.inference_mode():
                expected = module(*inputs.values()).numpy()
            found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
            relative = float(np.abs(found - expected).max() / np.abs(expected).max())
            worst = max(worst, relative if np.isfinite(relative) else np.inf)
    return worst


def export(
    checkpoint: Annotated[Path, typer.Argument(help="As mpi-fast train --method dernet or deq writes it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write [default: the name with .onnx].")
    ] = None,
) -> None:
    """Export a network to compare with, if it equals the original."""
    with friendly():
        path = output or checkpoint.with_suffix(".onnx")
        content = learned_onnx(load_trained(checkpoint))
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(content)
        console.print(f"wrote {path}: {len(content) / 2**20:.2f} MB", soft_wrap=True)


if __name__ == "__main__":
    typer.run(export)
