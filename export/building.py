"""Make a bundle from a checkpoint: export, count operations, compare with the network, and then write.

Existing contents of a bundle of the same checkpoint are kept, unless they are made anew: graphs of another precision,
the frozen graph of a scanner, engines of unchanged graphs.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpi_fast.bundle import FROZEN, Bundle, half_name, write_bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import ModelError
from mpi_fast.export.artefacts import Artefact, artefacts
from mpi_fast.export.frame import Frame
from mpi_fast.export.graph_cost import count_flops, statistics
from mpi_fast.export.parity import compared, require
from mpi_fast.export.torch_to_onnx import Graph
from mpi_fast.export.triton import write_repository
from mpi_fast.frozen import fingerprint
from mpi_fast.limits import EVALUATIONS
from mpi_fast.tensorrt_library import LOG, listed
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.network import PosteriorNetwork

FROZEN_FILES = FROZEN, half_name(FROZEN)
PER_FILE = {
    "statistics": None,
    "parity": "artefact",
    "frozen": "file",
}  # entries of the manifest about files: None for a mapping by file, else the key of the file's name in a list's items


@dataclass(frozen=True)
class Request:
    """A request for an export.

    Attributes
    ----------
    checkpoint_file, output : Path
        ``model.pt``, and the bundle to write.
    precisions : tuple of str
        ``fp32``, and optionally ``fp16``.
    calibration_file : Path, optional
        Saved calibration to freeze.
    triton : Path, optional
        Triton model repository to write, of the frozen graph in float32.
    only_missing : bool
        Keep existing graphs for every calibration.
    """

    checkpoint_file: Path
    output: Path
    precisions: tuple[str, ...] = ("fp32",)
    calibration_file: Path | None = None
    triton: Path | None = None
    only_missing: bool = False


def build(request: Request) -> Bundle:
    """Export a network, compare the graphs with it, and write the bundle.

    Raises
    ------
    ModelError
        For a checkpoint of another kind, and if a graph does not equal the network (see `parity.require`) or does not
        fit into a file; then nothing is written.
    """
    # The convolutions are too small for several threads, which wait for each other in busy loops. While other programs
    # run, several threads of torch are ten times slower than one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _build(request)
    finally:
        torch.set_num_threads(threads)


def _build(request: Request) -> Bundle:
    trained = load_trained(request.checkpoint_file)
    network = trained.network
    if not isinstance(network, PosteriorNetwork):
        raise ModelError(
            f"{request.checkpoint_file}: a network of the method '{trained.method}', expected 'posterior'; to export "
            "it: python -m mpi_fast.export.learned"
        )
    frame = Frame(network).eval()
    calibration = Calibration.load(request.calibration_file) if request.calibration_file else None
    sha256 = hashlib.sha256(request.checkpoint_file.read_bytes()).hexdigest()
    earlier = _earlier(request.output, sha256)
    graphs: dict[str, Graph] = {}
    manifest: dict[str, Any] = {
        "sigma_range": list(trained.sigma_range),
        "parameters": sum(value.numel() for value in network.parameters()),
        "network": network.config.to_dict(),
        "provenance": trained.provenance,
        "checkpoint": {"file": os.path.relpath(request.checkpoint_file, request.output), "sha256": sha256},
        "statistics": {},
        "parity": [],
    }
    for artefact in artefacts(frame, calibration, request.precisions):
        if request.only_missing and earlier and artefact.name in set(earlier.manifest["files"]) - set(FROZEN_FILES):
            continue
        graphs[artefact.name], rows = _made(artefact)
        manifest["parity"] += rows
        manifest["statistics"][artefact.name] = _cost(artefact, graphs[artefact.name])
    if calibration and request.calibration_file:
        facts = {"rows": calibration.num_rows, "rank": calibration.rank, "source": request.calibration_file.name}
        scanner = {**facts, "scanner": fingerprint(calibration), "evaluations": EVALUATIONS}
        manifest["frozen"] = [{"file": name, **scanner} for name in graphs if name in FROZEN_FILES]
    contents = {name: one.content for name, one in graphs.items()}
    bundle = write_bundle(request.output, *_with_earlier(manifest, contents, earlier))
    if request.triton:
        write_repository(request.triton, graphs[FROZEN].model, contents[FROZEN])
    return bundle


def _made(artefact: Artefact) -> tuple[Graph, list[dict[str, Any]]]:
    graph = artefact.export()
    rows = compared(artefact.original, artefact.name, graph.content, artefact.cases())
    require(rows)
    return graph, rows


def _cost(artefact: Artefact, graph: Graph) -> dict[str, Any]:
    what, inputs, sizes = artefact.cost
    return {"of": what, **statistics(graph, count_flops(artefact.original, inputs), sizes)}


def _earlier(output: Path, sha256: str) -> Bundle | None:
    """The existing bundle, if it is of this checkpoint and readable by this version."""
    try:
        bundle = Bundle.open(output)
    except ModelError:
        return None
    return bundle if bundle.manifest.get("checkpoint", {}).get("sha256") == sha256 else None


def _with_earlier(
    manifest: Mapping[str, Any], contents: Mapping[str, bytes], earlier: Bundle | None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A manifest and contents, together with the still valid files of an earlier bundle and their entries."""
    if earlier is None:
        return dict(manifest), dict(contents)
    # A bundle has one scanner: a new frozen graph replaces those of another scanner in all precisions.
    gone = set(contents) | (set(FROZEN_FILES) if "frozen" in manifest else set())
    kept = {name: earlier.read(name) for name in earlier.manifest["files"] if name.endswith(".onnx")}
    everything = {**{name: content for name, content in kept.items() if name not in gone}, **contents}
    merged = {**manifest, "engines": []}
    for facts in listed(earlier):
        if facts.built_from(everything.get(facts.onnx, b"")):
            merged["engines"].append(facts.to_dict())
            everything |= {name: earlier.read(name) for name in (facts.file, facts.file + LOG)}
    for name, where in PER_FILE.items():
        before = earlier.manifest.get(name, ())
        if where is None:
            merged[name] = {**{key: one for key, one in dict(before).items() if key not in gone}, **manifest[name]}
        else:
            merged[name] = [*(one for one in before if one[where] not in gone), *manifest.get(name, ())]
    return merged, everything
