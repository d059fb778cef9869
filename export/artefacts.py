"""Everything that one checkpoint becomes: made, counted, compared with the original, and only then written."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpi_fast.bundle import Bundle, write_bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.export import posterior_bundle
from mpi_fast.export.frame import FrameGraph, fixed_rank, frame_inputs, frame_onnx
from mpi_fast.export.frozen import Reduction, frozen_onnx
from mpi_fast.export.onnx import Graph, encoder_onnx, score_inputs, score_onnx
from mpi_fast.export.parity import compare
from mpi_fast.export.statistics import count_flops, statistics
from mpi_fast.export.triton import write_repository
from mpi_fast.guidance import CONDITION_CHANNELS
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Sampling
from mpi_fast.training.checkpoint import Checkpoint, load_checkpoint, load_trained

ENCODER, SCORE, HALF = "encoder.onnx", "score.onnx", "score.fp16.onnx"
GENERAL, FROZEN = "reconstruct.onnx", "reconstruct.frozen.onnx"
SERVED = "Triton's model.onnx"


@dataclass(frozen=True)
class Request:
    """What to export, see `__main__.make_bundle`."""

    checkpoint_file: Path
    output: Path
    precision: tuple[str, ...]
    calibration_file: Path | None
    steps: int
    samples: int
    consensus: int
    triton: Path | None = None
    only_missing: bool = False


def build(request: Request) -> Bundle:
    """Export, compare and write."""
    # Small networks are no work for several threads, which wait for each other in busy loops: where other programs run,
    # torch's are ten times slower than one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _build(request)
    finally:
        torch.set_num_threads(threads)


def _build(request: Request) -> Bundle:
    trained = load_trained(request.checkpoint_file)
    if trained.method == "posterior":
        sampling = Sampling()
        inside = request.steps, request.samples, request.consensus
        if inside != (sampling.steps, sampling.samples, sampling.consensus):
            raise InputError("--steps, --samples, --consensus: a posterior network makes the image in one evaluation")
        return posterior_bundle.build(
            trained,
            posterior_bundle.Request(
                request.checkpoint_file,
                request.output,
                request.precision,
                request.calibration_file,
                request.triton,
                request.only_missing,
            ),
        )
    checkpoint = load_checkpoint(request.checkpoint_file)
    calibration = Calibration.load(request.calibration_file) if request.calibration_file else None
    if calibration and calibration.grid != checkpoint.grid:
        raise MismatchError(
            f"{request.calibration_file}: a grid of {calibration.grid}, but {request.checkpoint_file} is a network "
            f"for {checkpoint.grid}"
        )
    graphs = _graphs(checkpoint, calibration, request)
    served = graphs.pop(SERVED, None)
    contents = {name: graph.content for name, graph in graphs.items()}
    manifest = _manifest(checkpoint, calibration, request)
    manifest["statistics"] = {
        name: statistics(graph, _flops(name, checkpoint, calibration, request)) for name, graph in graphs.items()
    }
    with tempfile.TemporaryDirectory() as folder:  # the comparison runs what a user will run: a bundle on disk
        everything, all_contents = dict(manifest), dict(contents)
        if served:
            everything["frozen"] = [*manifest["frozen"], {**manifest["frozen"][0], "file": SERVED}]
            all_contents[SERVED] = served.content
        trial = write_bundle(Path(folder) / "trial", everything, all_contents)
        parity = [one.to_dict() for one in compare(checkpoint, trial, calibration)]
    bundle = write_bundle(request.output, {**manifest, "parity": parity}, contents)
    if served and request.triton:
        write_repository(request.triton, served.model, served.content)
    return bundle


def _graphs(checkpoint: Checkpoint, calibration: Calibration | None, request: Request) -> dict[str, Graph]:
    graphs = {ENCODER: encoder_onnx(checkpoint), SCORE: score_onnx(checkpoint)}
    if "fp16" in request.precision:
        graphs[HALF] = score_onnx(checkpoint, "fp16")
    general = frame_onnx(checkpoint, request.steps, request.samples, request.consensus)
    graphs[GENERAL] = fixed_rank(general, checkpoint.grid[0] * checkpoint.grid[1])
    if calibration:
        graphs[FROZEN] = frozen_onnx(general, calibration)
        if request.triton:
            noise = mirrored_normal(0, request.samples, calibration.num_voxels)
            graphs[SERVED] = frozen_onnx(general, calibration, noise)
    return graphs


def _manifest(checkpoint: Checkpoint, calibration: Calibration | None, request: Request) -> dict[str, Any]:
    options = {"steps": request.steps, "samples": request.samples, "consensus": request.consensus}
    manifest: dict[str, Any] = {
        "grid": list(checkpoint.grid),
        "sigma_range": list(checkpoint.sigma_range),
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "network": checkpoint.network.config.to_dict(),
        "provenance": checkpoint.provenance,
        "checkpoint": {
            "file": os.path.relpath(request.checkpoint_file, request.output),
            "sha256": hashlib.sha256(request.checkpoint_file.read_bytes()).hexdigest(),
        },
        "precision": list(request.precision),
        "graphs": [{"file": GENERAL, **options}],
    }
    if calibration and request.calibration_file:
        scanner = {"rows": calibration.num_rows, "rank": calibration.rank, "source": request.calibration_file.name}
        manifest["frozen"] = [{"file": FROZEN, **options, **scanner}]
    return manifest


def _flops(name: str, checkpoint: Checkpoint, calibration: Calibration | None, request: Request) -> int:
    """Of one frame, or one image."""
    network = checkpoint.network
    if name == ENCODER:
        return count_flops(network.encoder, [torch.ones(1, CONDITION_CHANNELS, *checkpoint.grid)])
    if name in (SCORE, HALF):
        return count_flops(network.denoiser, score_inputs(checkpoint, 1).values())
    rank = calibration.rank if calibration and name == FROZEN else checkpoint.grid[0] * checkpoint.grid[1]
    frame = FrameGraph(checkpoint, request.steps, request.samples, request.consensus)
    flops = count_flops(frame, frame_inputs(checkpoint, request.samples, frames=1, rank=rank).values())
    if calibration and name == FROZEN:
        flops += count_flops(Reduction(calibration), torch.ones(2, 1, calibration.num_rows))
    return flops
