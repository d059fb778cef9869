"""The exported artefacts of a network: graphs for every calibration and for one, in float32 and float16.

Each artefact has a torch module, its export, the original in float32, and the cases on which both are compared.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpi_fast.bundle import FROZEN, PLANE, VOLUME, half_name
from mpi_fast.calibration import Calibration
from mpi_fast.export.depthwise_heads import depthwise_heads
from mpi_fast.export.frame import Frame
from mpi_fast.export.half import half
from mpi_fast.export.scanner_graph import ROWS, Frozen, frozen_graph
from mpi_fast.export.torch_to_onnx import Graph, to_onnx
from mpi_fast.grids import shown
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import FAMILIES, VOLUMES, generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner

FRAMES = 1, 3  # numbers of frames on which graph and original are compared
GRIDS = {PLANE: ((1, 19, 19), (1, 8, 13), (1, 33, 20)), VOLUME: ((9, 9, 9), (5, 8, 13), (12, 4, 7))}
BY_FRAME, BY_COMPONENT, RANK = {0: "frames"}, {0: "frames", 1: "rank"}, {0: "rank"}
GRID_AXES = {PLANE: {1: "rows", 2: "columns", 3: "rank"}, VOLUME: {0: "slices", 1: "rows", 2: "columns", 3: "rank"}}
TYPICAL = {PLANE: ((1, 19, 19), 150), VOLUME: ((19, 19, 19), 1000)}  # grid and rank for which the cost is reported
OUTPUTS = "image", "std", "quantiles"
SNRS_DB = 5.0, 20.0, 35.0  # signal-to-noise ratios of simulated frames
SIMULATED_VOLUME = 8, 9, 10

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """Inputs of an artefact, those of each call by name; for simulated frames also the true images, (F, N)."""

    what: str
    inputs: tuple[Inputs, ...]
    truth: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Artefact:
    """One file of a bundle.

    Attributes
    ----------
    name : str
        Name of the file.
    export : callable
        Makes the graph; takes seconds to minutes.
    original : nn.Module
        The original in float32.
    cases : callable
        Makes the cases for the comparison.
    cost : tuple
        Case for the cost: a description, inputs of one frame, and lengths of the axes that are not fixed.
    """

    name: str
    export: Callable[[], Graph]
    original: nn.Module
    cases: Callable[[], list[Case]]
    cost: tuple[str, tuple[Tensor, ...], Mapping[str, int]]


def artefacts(frame: Frame, calibration: Calibration | None, precisions: tuple[str, ...]) -> Iterator[Artefact]:
    """All files of a network: for every calibration, and frozen for one if it is given."""
    modules = {"fp32": depthwise_heads(frame)} | ({"fp16": half(frame)} if "fp16" in precisions else {})
    for (precision, module), name in product(modules.items(), (PLANE, VOLUME)):
        yield _general(frame, module, name, precision)
    for precision, module in modules.items() if calibration else ():
        assert calibration is not None
        yield _frozen(frame, module, calibration, precision)


def _general(frame: Frame, module: Frame, name: str, precision: str) -> Artefact:
    grid, rank = TYPICAL[name]
    shapes = (1, rank), (1,), (rank,), (*grid, rank), (1, *grid), (1,)
    sizes = dict(zip(("slices", "rows", "columns"), grid, strict=True)) | {"rank": rank}
    return Artefact(
        name if precision == "fp32" else half_name(name),
        lambda: general_graph(module, name),
        frame,
        (lambda: random_cases(name)) if precision == "fp32" else (lambda: [reduced(simulated(scanner(name)))]),
        (f"{shown(grid)} voxels, rank {rank}", tuple(map(torch.zeros, shapes)), sizes),
    )


def _frozen(frame: Frame, module: Frame, calibration: Calibration, precision: str) -> Artefact:
    what = f"{shown(calibration.grid)} voxels, {calibration.num_rows} rows, rank {calibration.rank}"
    return Artefact(
        FROZEN if precision == "fp32" else half_name(FROZEN),
        lambda: frozen_graph(module, calibration),
        Frozen(frame, calibration),
        lambda: [simulated(calibration)[0]],
        (what, tuple(torch.ones(2, 1, calibration.num_rows)), {}),
    )


def general_graph(frame: nn.Module, name: str) -> Graph:
    """The graph of this name, for any number of frames, rank and grid."""
    images = {axis + 1: title for axis, title in GRID_AXES[name].items() if axis < 3}
    axes = {"y": BY_COMPONENT, "noise": BY_FRAME, "singular_values": RANK, "basis": GRID_AXES[name]}
    axes |= {"noisy": BY_FRAME | images, "precision": BY_FRAME}
    (nz, ny, nx), rank = GRIDS[name][1], 40
    return to_onnx(frame, example((nz, ny, nx), rank, frames=3, seed=0), list(OUTPUTS), axes)


def example(grid: tuple[int, ...], rank: int, frames: int, seed: int) -> dict[str, Tensor]:
    """Signals of random images through a random scanner, by input name; every other frame also has a noisy image."""
    rng = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(prod(grid), rank, generator=rng))
    singular_values, noise = torch.logspace(1, -1, rank), torch.logspace(-1, 0.5, frames)
    clean = torch.rand(frames, prod(grid), generator=rng) @ basis * singular_values
    y = clean + noise[:, None] * torch.randn(frames, rank, generator=rng)
    precision = torch.logspace(1, -1, frames) * (torch.arange(frames) % 2)
    noisy = torch.rand(frames, *grid, generator=rng) * (precision > 0)[:, None, None, None]
    scanner = {"singular_values": singular_values, "basis": basis.reshape(*grid, rank)}
    return {"y": y, "noise": noise, **scanner, "noisy": noisy, "precision": precision}


def random_cases(name: str) -> list[Case]:
    """Cases of each of `GRIDS`, few and many components, one frame and several."""
    return [
        Case(
            f"random scanners of {shown(grid)} voxels",
            tuple(example(grid, rank, frames, rank + frames) for rank, frames in product((2, prod(grid) // 2), FRAMES)),
        )
        for grid in GRIDS[name]
    ]


def scanner(name: str) -> Calibration:
    """The default scanner of planes; for volumes a simple one, with rows of decaying products of cosines."""
    if name == PLANE:
        real = Scanner()
        rows = RowFilter(max_frequency=4e5)
        return Calibration.from_arrays(real.system_matrix(), real.frequencies, *real.plane, rows=rows)
    grid, orders = SIMULATED_VOLUME, list(product(range(6), repeat=3))
    angles = [np.pi * (np.arange(size) + 0.5) / size for size in grid]
    waves = [np.exp(-0.3 * sum(o)) * _outer(*(np.cos(n * a) for n, a in zip(o, angles, strict=True))) for o in orders]
    matrix = np.asarray(waves, np.complex64)[None]
    return Calibration.from_arrays(matrix, None, grid, (0.01, 0.02, 0.02))


def _outer(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (z[:, None, None] * y[:, None] * x).ravel()


def simulated(calibration: Calibration) -> tuple[Case, Calibration]:
    """Phantoms at `SNRS_DB` through a scanner, with a seed that training does not use; for planes of every family."""
    planar = len(calibration.grid) == 2
    families, count = (FAMILIES, len(FAMILIES)) if planar else (VOLUMES, 2)
    phantoms = generate(list(families), count, calibration.grid, seed=0).reshape(count, -1)
    phantoms = phantoms[phantoms.max(axis=1) > 0]  # on a coarse grid some phantoms are empty
    signals, rng = phantoms @ calibration.matrix.T, np.random.default_rng(1)
    rows = np.concatenate([add_noise(signals, snr, rng) for snr in SNRS_DB]).astype(np.complex64)
    planes = dict(zip(ROWS, (torch.from_numpy(np.array(part)) for part in (rows.real, rows.imag)), strict=True))
    return Case(f"{len(rows)} simulated frames", (planes,), np.tile(phantoms, (len(SNRS_DB), 1))), calibration


def reduced(given: tuple[Case, Calibration]) -> Case:
    """Simulated frames as inputs of the general graphs."""
    (case, calibration), inputs = given, given[0].inputs[0]
    frames = calibration.reduce(torch.complex(inputs["real"], inputs["imag"]).numpy())
    grid = (*(1,) * (3 - len(calibration.grid)), *calibration.grid)
    feeds = {
        "y": frames.y,
        "noise": frames.noise,
        "singular_values": calibration.singular_values,
        "basis": calibration.basis.reshape(*grid, -1),
        "noisy": np.zeros((len(frames.y), *grid), np.float32),
        "precision": np.zeros(len(frames.y), np.float32),
    }
    tensors = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in feeds.items()}
    return Case(f"{case.what} of {shown(calibration.grid)} voxels", (tensors,), case.truth)
