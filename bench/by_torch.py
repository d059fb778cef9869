"""The network evaluated by eager PyTorch, without an export."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.export.frame import Frame
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.network import PosteriorNetwork

CPU = torch.device("cpu")


@lru_cache
def trained() -> PosteriorNetwork:
    """The network from which the bundle was made."""
    network = load_trained(Bundle.open().checkpoint()).network
    assert isinstance(network, PosteriorNetwork)
    return network.eval()


def images(
    network: nn.Module, calibration: Calibration, signals: NDArray[Any], device: torch.device = CPU
) -> NDArray[np.float32]:
    """Images (F, ny, nx) of frames of a plane, computed by torch; ``network`` is called as a `PosteriorNetwork`."""
    reduced = calibration.reduce(calibration.rows(signals))
    basis = calibration.basis.reshape(1, *calibration.grid, calibration.rank)
    absent = np.zeros((len(signals), 1, *calibration.grid), np.float32), np.zeros(len(signals), np.float32)
    arrays = reduced.y, reduced.noise, calibration.singular_values, basis, *absent
    inputs = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
    with torch.inference_mode():
        image, *_ = Frame(network).to(device)(*inputs)  # type: ignore[arg-type]
    return np.asarray(image[:, 0].cpu().numpy())
