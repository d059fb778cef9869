"""The complete graph of one calibration, from selected rows to image, for any ONNX runtime."""

import json

import numpy as np
import torch
from torch import Tensor, nn

from mpi_fast.bundle import LARGEST_FILE
from mpi_fast.calibration import Calibration
from mpi_fast.errors import ModelError
from mpi_fast.export.frame import Frame, scale_and_presence, unit_and_level
from mpi_fast.export.torch_to_onnx import Graph, to_onnx
from mpi_fast.limits import EVALUATIONS
from mpi_fast.reduction import SNR_CEILING_DB

ROWS, RESULTS = ("real", "imag"), ("image", "std", "quantiles", "snr_db", "noise_floor")
LARGEST_SCANNER = LARGEST_FILE - 2**26  # bytes; the rest is for nodes, shapes and names


class Reduction(nn.Module):
    """`Calibration.reduce` in float32.

    `Calibration.reduce` computes the energy outside the range of A as a difference of energies in float64; in float32
    it would be lost at 35 dB. Here it is the energy of the difference ``b_r - U y``, whose rounding error is 1e-7 of
    the signal's amplitude, far below the smallest noise level in use (`SNR_CEILING_DB`). Each frame is divided by its
    largest number meanwhile, because squares of numbers below 1e-20 vanish in float32.
    """

    weights: Tensor
    u: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        unweighted = calibration.projection / calibration.weights
        u = np.concatenate([unweighted.real, -unweighted.imag], axis=1).T
        self.register_buffer("weights", torch.from_numpy(calibration.weights.astype(np.float32)))
        self.register_buffer("u", torch.from_numpy(np.ascontiguousarray(u, dtype=np.float32)))

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Selected rows (F, M), two planes -> y (F, R), noise (F,), snr_db (F,); see `calibration.ReducedFrames`."""
        total, rank = self.u.shape
        whitened = torch.cat([real * self.weights, imag * self.weights], dim=1)
        largest = torch.abs(whitened).amax(dim=1, keepdim=True)
        unit = torch.where(largest > 0, largest, 1.0)
        whitened = whitened / unit
        y = whitened @ self.u
        energy = torch.square(whitened).sum(dim=1)
        variance = torch.square(whitened - y @ self.u.T).sum(dim=1) / (total - rank)
        variance = torch.maximum(variance, energy * (10 ** (-SNR_CEILING_DB / 10) / total))
        ratio = energy / torch.where(energy > 0, total * variance, 1.0) - 1.0
        snr_db = torch.log(torch.clamp(ratio, min=0.0)) * (10 / np.log(10))
        return y * unit, torch.sqrt(variance) * unit[:, 0], snr_db


class Frozen(nn.Module):
    """The reduction of one calibration, and the network with its scanner inside.

    The network is evaluated `limits.EVALUATIONS` times, as `pipelines.graph` does it; see `refinement`.
    """

    singular_values: Tensor
    basis: Tensor
    energy: Tensor

    def __init__(self, frame: Frame, calibration: Calibration) -> None:
        super().__init__()
        self.reduction, self.frame, self.grid = Reduction(calibration), frame, calibration.grid
        scanner = {
            "singular_values": calibration.singular_values,
            "basis": calibration.basis.reshape(*(1,) * (3 - len(self.grid)), *self.grid, calibration.rank),
            "energy": np.square(calibration.basis).mean(axis=0),
        }
        for name, array in scanner.items():
            self.register_buffer(name, torch.from_numpy(np.array(array, np.float32)))

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, ...]:
        """Selected rows (F, M), two planes -> images.

        Returns
        -------
        image, std : (F, *grid)
        quantiles : (F, 2)
        snr_db, noise_floor : (F,)
            See `reconstruction.Reconstruction` for all of them.
        """
        y, noise, snr_db = self.reduction(real, imag)
        given = y, noise, self.singular_values, self.basis
        scale, _ = scale_and_presence(y, noise[:, None], self.singular_values)
        image, std, quantiles = self.frame(*given)
        for _ in range(EVALUATIONS - 1):
            relative = std.flatten(1) / torch.where(scale > 0, scale, 1.0)
            square = torch.square(relative).mean(dim=1)
            seen = square > 0
            precision = torch.where(seen, 1.0 / torch.where(seen, square, 1.0), 0.0)
            image, std, quantiles = self.frame(*given, image, precision)
        _, level = unit_and_level(scale, noise[:, None])
        passed = level * self.singular_values / (torch.square(self.singular_values) + torch.square(level))
        noise_floor = scale[:, 0] * torch.sqrt((torch.square(passed) * self.energy).sum(dim=1))
        return image.reshape(-1, *self.grid), std.reshape(-1, *self.grid), quantiles, snr_db, noise_floor


def frozen_graph(frame: Frame, calibration: Calibration) -> Graph:
    """`Frozen` as a graph; its metadata names the rows: ``selection``, a JSON list of [channel, frequency index].

    Raises
    ------
    ModelError
        For a scanner that does not fit into an ONNX file.
    """
    module = Frozen(frame, calibration)
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*module.buffers(), *module.parameters()))
    if size > LARGEST_SCANNER:
        raise ModelError(
            f"a scanner of {calibration.num_voxels} voxels, {calibration.num_rows} rows and rank {calibration.rank} is "
            f"{size / 2**30:.1f} GiB as constants, but an ONNX file has at most {LARGEST_FILE / 2**30:g} GiB: "
            f"use fewer rows (calibrate --max-rows), or {'volume' if len(calibration.grid) == 3 else 'plane'}.onnx, "
            "which has the scanner as an input"
        )
    rows = {name: torch.ones(2, calibration.num_rows) for name in ROWS}
    made = to_onnx(module, rows, list(RESULTS), {name: {0: "frames"} for name in rows})
    made.model.metadata_props.add(key="selection", value=json.dumps(np.argwhere(calibration.selection).tolist()))
    return made
