"""A posterior network's checkpoint becomes a bundle of two graphs, for planes and for volumes, or nothing."""

import hashlib
import os
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from mpi_fast.bundle import PLANE, VOLUME, Bundle, write_bundle
from mpi_fast.errors import ModelError
from mpi_fast.export.onnx import Graph, to_onnx
from mpi_fast.export.posterior import Frame
from mpi_fast.export.statistics import count_flops, statistics
from mpi_fast.grids import shown
from mpi_fast.training.checkpoint import Trained
from mpi_fast.training.posterior import PosteriorNetwork

TOLERANCE = 1e-4  # relative to the largest value of the original's output
FRAMES = 1, 3  # numbers of frames on which graph and original are compared
GRIDS = {PLANE: ((1, 19, 19), (1, 8, 13), (1, 33, 20)), VOLUME: ((9, 9, 9), (5, 8, 13), (12, 4, 7))}
BY_FRAME, BY_COMPONENT, RANK = {0: "frames"}, {0: "frames", 1: "rank"}, {0: "rank"}
GRID_AXES = {PLANE: {1: "rows", 2: "columns", 3: "rank"}, VOLUME: {0: "slices", 1: "rows", 2: "columns", 3: "rank"}}
TYPICAL = {PLANE: ((1, 19, 19), 150), VOLUME: ((19, 19, 19), 1000)}  # grid and rank for which the cost is told


def build(trained: Trained, checkpoint_file: Path, output: Path) -> Bundle:
    """Export, compare and write.

    Raises
    ------
    ModelError
        When a graph differs from the network by more than `TOLERANCE`; then nothing is written.
    """
    network = trained.network
    assert isinstance(network, PosteriorNetwork)
    frame = Frame(network).eval()
    graphs = {name: graph(frame, name) for name in (PLANE, VOLUME)}
    contents = {name: one.content for name, one in graphs.items()}
    parity = [one for name, content in contents.items() for one in compared(frame, name, content)]
    for one in parity:
        if not one["relative"] <= TOLERANCE:
            raise ModelError(
                f"the exported network is not the original: {one['artefact']}: relative difference "
                f"{one['relative']:.2g} on {one['what']}, allowed {TOLERANCE:g}; no bundle was written"
            )
    manifest = {
        "method": trained.method,
        "sigma_range": list(trained.sigma_range),
        "parameters": sum(value.numel() for value in network.parameters()),
        "network": network.config.to_dict(),
        "provenance": trained.provenance,
        "checkpoint": {
            "file": os.path.relpath(checkpoint_file, output),
            "sha256": hashlib.sha256(checkpoint_file.read_bytes()).hexdigest(),
        },
        "statistics": {name: _cost(frame, name, one) for name, one in graphs.items()},
        "parity": parity,
    }
    return write_bundle(output, manifest, contents)


def graph(frame: nn.Module, name: str) -> Graph:
    """The graph of this name, for any number of frames, rank and grid."""
    images = {axis + 1: title for axis, title in GRID_AXES[name].items() if axis < 3}
    axes = {"y": BY_COMPONENT, "noise": BY_FRAME, "singular_values": RANK, "basis": GRID_AXES[name]}
    axes |= {"noisy": BY_FRAME | images, "precision": BY_FRAME}
    (nz, ny, nx), rank = GRIDS[name][1], 40
    return to_onnx(frame, example((nz, ny, nx), rank, frames=3, seed=0), ["image", "std", "quantiles"], axes)


def example(grid: tuple[int, ...], rank: int, frames: int, seed: int) -> dict[str, Tensor]:
    """Signals of random images through a random scanner, by input name; every other frame has a noisy image beside."""
    rng = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(prod(grid), rank, generator=rng))
    singular_values, noise = torch.logspace(1, -1, rank), torch.logspace(-1, 0.5, frames)
    clean = torch.rand(frames, prod(grid), generator=rng) @ basis * singular_values
    y = clean + noise[:, None] * torch.randn(frames, rank, generator=rng)
    precision = torch.logspace(1, -1, frames) * (torch.arange(frames) % 2)
    noisy = torch.rand(frames, *grid, generator=rng) * (precision > 0)[:, None, None, None]
    scanner = {"singular_values": singular_values, "basis": basis.reshape(*grid, rank)}
    return {"y": y, "noise": noise, **scanner, "noisy": noisy, "precision": precision}


def compared(frame: nn.Module, name: str, content: bytes) -> list[dict[str, Any]]:
    """Largest difference of a graph from the network, on each of `GRIDS`; for the manifest."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rows = []
    for grid in GRIDS[name]:
        largest = relative = 0.0
        for rank, frames in product((2, prod(grid) // 2), FRAMES):
            inputs = example(grid, rank, frames, seed=rank + frames)
            with torch.inference_mode():
                expected = [tensor.numpy() for tensor in frame(*inputs.values())]
            found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            for ours, theirs in zip(found, expected, strict=True):
                difference = float(np.abs(ours - theirs).max())  # NaN stays NaN, and is refused
                largest, relative = max(difference, largest), max(difference / float(np.abs(theirs).max()), relative)
        what = f"random scanners of {shown(grid)} voxels"
        facts = {"largest": largest, "relative": relative, "psnr_change_db": None}
        rows.append({"artefact": name, "what": what, **facts, "allowed": f"{TOLERANCE:g} relative"})
    return rows


def _cost(frame: nn.Module, name: str, graph: Graph) -> dict[str, Any]:
    grid, rank = TYPICAL[name]
    inputs = [torch.zeros(shape) for shape in ((1, rank), (1,), (rank,), (*grid, rank), (1, *grid), (1,))]
    sizes = dict(zip(("slices", "rows", "columns"), grid, strict=True)) | {"rank": rank}
    return {"of": f"{shown(grid)} voxels, rank {rank}", **statistics(graph, count_flops(frame, inputs), sizes)}
