"""Eager PyTorch on the CPU: the reference that exported networks are compared with."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_fast.guidance import CONDITION_CHANNELS
from mpi_fast.training.checkpoint import Checkpoint

Array = NDArray[np.float32]


class TorchEngine:
    """The network of a checkpoint, as it was trained."""

    name = "torch"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.network, self.grid = checkpoint.network, checkpoint.grid

    def bind(self, frames: int, samples: int) -> "TorchEvaluator":
        """Buffers for ``frames`` frames with ``samples`` samples each."""
        return TorchEvaluator(self, frames, samples)


class TorchEvaluator:
    """See `denoiser.Evaluator`; the arrays share their memory with tensors."""

    def __init__(self, engine: TorchEngine, frames: int, samples: int) -> None:
        self._network, self._samples = engine.network, samples
        self.condition: Array = np.zeros((frames, CONDITION_CHANNELS, *engine.grid), dtype=np.float32)
        self.image: Array = np.zeros((frames * samples, 3, *engine.grid), dtype=np.float32)
        self.sigma: Array = np.ones(frames * samples, dtype=np.float32)
        self._features: Tensor | None = None

    @torch.inference_mode()
    def encode(self) -> None:
        """Run the encoder on ``condition``."""
        encoded = self._network.encoder(torch.from_numpy(self.condition))
        self._features = encoded.repeat_interleave(self._samples, dim=0)

    @torch.inference_mode()
    def denoise(self) -> Array:
        """Run the denoiser on ``image`` and ``sigma``."""
        image, sigma = torch.from_numpy(self.image), torch.from_numpy(self.sigma)
        denoised: Array = self._network.denoiser(image, sigma, self._features).numpy()
        return denoised
