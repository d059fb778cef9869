"""The whole-frame graph of one calibration: selected rows in, image out, nothing else needed but an ONNX runtime."""

import json

import numpy as np
import onnx
import torch
from onnx import compose, numpy_helper
from torch import Tensor, nn

from mpi_fast.bundle import LARGEST_FILE
from mpi_fast.calibration import Calibration
from mpi_fast.errors import ModelError
from mpi_fast.export.onnx import Graph, checked, count, quiet, to_onnx
from mpi_fast.export.posterior import Frame, scale_and_presence, unit_and_level
from mpi_fast.export.shared import tidied
from mpi_fast.limits import EVALUATIONS
from mpi_fast.reduction import SNR_CEILING_DB

OUTPUTS = ("image", "std", "snr_db")
ROWS, RESULTS = ("real", "imag"), ("image", "std", "quantiles", "snr_db", "noise_floor")
LARGEST_SCANNER = LARGEST_FILE - 2**26  # bytes; the rest is for nodes, shapes and names
LARGEST_CONSTANT = 2**24  # bytes that constant folding may make of one tensor: V * V of a grid of 2048 voxels


class Reduction(nn.Module):
    """`Calibration.reduce` in float32.

    There, the energy outside the range of A is a difference of energies in float64; in float32 nothing would be left of
    it at 35 dB. Here it is the energy of the difference ``b_r - U y``, whose rounding error is 1e-7 of the signal's
    amplitude, far below the smallest noise that is believed (`SNR_CEILING_DB`).
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
        y = whitened @ self.u
        energy = torch.square(whitened).sum(dim=1)
        variance = torch.square(whitened - y @ self.u.T).sum(dim=1) / (total - rank)
        variance = torch.maximum(variance, energy * (10 ** (-SNR_CEILING_DB / 10) / total))
        ratio = energy / torch.where(energy > 0, total * variance, 1.0) - 1.0
        snr_db = torch.log(torch.clamp(ratio, min=0.0)) * (10 / np.log(10))
        return y, torch.sqrt(variance), snr_db


class Frozen(nn.Module):
    """The reduction of one calibration, and the posterior network with its scanner inside.

    The network is evaluated `limits.EVALUATIONS` times, as `pipelines.posterior` does it; see `refinement`.
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
            As `reconstruction.Reconstruction` has them all.
        """
        y, noise, snr_db = self.reduction(real, imag)
        given = y, noise, self.singular_values, self.basis
        scale, _ = scale_and_presence(y, noise[:, None], self.singular_values)
        image, std, quantiles = self.frame(*given)
        for _ in range(EVALUATIONS - 1):
            square = torch.square(std).mean(dim=(1, 2, 3))
            seen = square > 0
            precision = torch.where(seen, torch.square(scale[:, 0]) / torch.where(seen, square, 1.0), 0.0)
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
            f"{size / 2**30:.1f} GiB as constants of a graph, and an ONNX file ends at {LARGEST_FILE / 2**30:g} GiB: "
            f"take fewer rows (calibrate --max-rows), or {'volume' if len(calibration.grid) == 3 else 'plane'}.onnx, "
            "whose input the scanner is"
        )
    rows = {name: torch.ones(2, calibration.num_rows) for name in ROWS}
    made = to_onnx(module, rows, list(RESULTS), {name: {0: "frames"} for name in rows})
    made.model.metadata_props.add(key="selection", value=json.dumps(np.argwhere(calibration.selection).tolist()))
    return made


def frozen_onnx(general: Graph, calibration: Calibration, initial: np.ndarray | None = None) -> Graph:
    """Put the reduction before a graph of `frame.frame_onnx`, and S and V into it.

    Its metadata names the rows: ``selection``, a JSON list of [channel, frequency index].

    Parameters
    ----------
    general : Graph
        With the axis of R still free.
    calibration : Calibration
        Of its grid.
    initial : (samples, N) float32, optional
        Noise to freeze, too; then the graph has only inputs with an axis of frames, as batching servers want them.
    """
    frozen = {"singular_values": calibration.singular_values, "basis": calibration.basis}
    if initial is not None:
        frozen["initial"] = initial
    frame = onnx.ModelProto()
    frame.CopyFrom(general.model)
    graph = frame.graph
    kept = [value for value in graph.input if value.name not in frozen]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in frozen.items())
    # Two tensors: given one for both, the exporter takes the inputs for one.
    rows = {name: torch.ones(2, calibration.num_rows) for name in ("real", "imag")}
    axes = {name: {0: "frames"} for name in rows}
    reduction = to_onnx(Reduction(calibration), rows, ["reduced", "level", "snr_db"], axes)
    first = compose.add_prefix(reduction.model, "reduction.", rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(first, frame, [("reduced", "y"), ("level", "noise")], outputs=list(OUTPUTS))
    outputs = {value.name: value for value in whole.graph.output}
    del whole.graph.output[:]
    whole.graph.output.extend(outputs[name] for name in OUTPUTS)
    before = reduction.nodes_before + general.nodes_before
    with quiet():
        whole = tidied(whole, LARGEST_CONSTANT)
    assert count(whole) < before
    model = checked(onnx.shape_inference.infer_shapes(whole))
    model.metadata_props.add(key="selection", value=json.dumps(np.argwhere(calibration.selection).tolist()))
    return Graph(model, before)
