"""Export a network of another method as one equal ONNX model; `learned` is the command."""

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mpi_fast.errors import ModelError
from mpi_fast.export.torch_to_onnx import to_onnx
from mpi_fast.methods.learned_model import KIND
from mpi_fast.training.checkpoint import Trained

TOLERANCE = 1e-4  # relative to the largest value of the original's output
FRAMES = (1, 5)  # numbers of frames on which both are compared
BY_FRAME, BY_COMPONENT = {0: "frames"}, {0: "frames", 1: "rank"}
SIGNALS = {"y": BY_COMPONENT, "noise": BY_FRAME, "singular_values": {0: "rank"}, "basis": {1: "rank"}}
AXES = {
    "dernet": SIGNALS,
    "deq": {"image": BY_FRAME, "prior": BY_FRAME, "signal": BY_COMPONENT, **SIGNALS},
}
OUTPUTS = {
    "dernet": ["reconstruction"],
    "deq": ["next_image", "next_prior", "next_signal"],
}


class OneScanner(nn.Module):
    """`training.dernet_network.Dernet`, or a module with the same inputs, for the frames of one scanner."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> Tensor:
        """Images (F, N)."""
        images: Tensor = self.network(y[None], noise[None], singular_values[None], basis[None])[0]
        return images


class OneScannerStep(nn.Module):
    """`training.deq_network.Equilibrium` for the frames of one scanner, with the three parts of its state separated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        image: Tensor,
        prior: Tensor,
        signal: Tensor,
        y: Tensor,
        noise: Tensor,
        singular_values: Tensor,
        basis: Tensor,
    ) -> tuple[Tensor, ...]:
        """The next image x (F, N), multiplier d0 (F, N) of the prior and d2 / sigma (F, R) of the signals."""
        state = torch.cat([image, prior, signal], dim=1)
        following = self.network(state[None], y[None], noise[None], singular_values[None], basis[None])[0]
        return torch.split(following, [image.shape[1], image.shape[1], signal.shape[1]], dim=1)


def learned_onnx(trained: Trained) -> bytes:
    """The result of `graph`, checked to equal the original.

    Raises
    ------
    ModelError
        For our own network, and if the exported network differs by more than `TOLERANCE`.
    """
    if trained.method not in OUTPUTS:
        raise ModelError(f"a network of the method '{trained.method}': to export it, python -m mpi_fast.export")
    content = graph(trained)
    worst = difference(trained, content)
    if not worst <= TOLERANCE:
        raise ModelError(
            f"the exported network differs from the original: relative difference {worst:.2g}, allowed {TOLERANCE:g}; "
            "nothing was written"
        )
    return content


def graph(trained: Trained) -> bytes:
    """The network as a checked ONNX model of dynamic frames F and rank R.

    Inputs: y (F, R), noise (F,), singular_values (R,), basis (N, R), and for ``deq`` before them image and prior (F, N)
    and signal (F, R). Outputs: the image (F, N), or the next image, prior and signal.
    """
    inputs = example(trained, trained.grid[0] * trained.grid[1] // 3, 3, seed=0)
    made = to_onnx(module(trained), inputs, OUTPUTS[trained.method], AXES[trained.method])
    facts = {"grid": json.dumps(trained.grid), "provenance": json.dumps(trained.provenance)}
    onnx.helper.set_model_props(made.model, {"kind": KIND, "method": trained.method, **facts})
    return made.content


def module(trained: Trained) -> nn.Module:
    """The module to export."""
    wrappers: dict[str, Callable[[Any], nn.Module]] = {"deq": OneScannerStep, "dernet": OneScanner}
    return wrappers[trained.method](trained.network).eval()


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
        prior, signal = (0.1 * torch.randn(frames, size, generator=rng) for size in (voxels, rank))
        inputs = {"image": images, "prior": prior, "signal": signal, **inputs}
    return inputs


def difference(trained: Trained, content: bytes) -> float:
    """Largest difference of an exported network from the original, relative to the original's largest value."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    original, worst = module(trained), 0.0
    for rank, frames in product((2, trained.grid[0] * trained.grid[1] // 2), FRAMES):
        inputs = example(trained, rank, frames, seed=rank + frames)
        with torch.inference_mode():
            outputs = original(*inputs.values())
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        expected = torch.cat(parts, dim=1).numpy()  # an iteration's state is one vector
        found = np.concatenate(session.run(None, {name: value.numpy() for name, value in inputs.items()}), axis=1)
        relative = float(np.abs(found - expected).max() / np.abs(expected).max())
        worst = max(worst, relative if np.isfinite(relative) else np.inf)
    return worst
