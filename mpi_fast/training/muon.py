"""Muon: momentum whose step is made orthogonal, for the weights of convolutions.

A step along the gradient's momentum M mostly changes few directions. The nearest semi-orthogonal matrix ``U V^T``,
where ``M = U S V^T``, changes all directions equally. A Newton-Schulz iteration finds it without an SVD (Jordan et al.,
"Muon: an optimizer for hidden layers in neural networks", 2024). A kernel is a matrix (outputs, inputs * rows *
columns). The step's size is that of AdamW (Liu et al., "Muon is scalable for LLM training", 2025, section 2.2).
PyTorch's own version supports only matrices.
"""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic iteration, chosen by its authors to converge fast
ITERATIONS = 5
LIKE_ADAMW = 0.2  # root-mean-square of a step of AdamW


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values between 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.T if tall else x
    return found


class Muon(torch.optim.Optimizer):
    """The optimiser Muon, for parameters of two or more axes.

    Parameters
    ----------
    parameters : iterable
    lr : float
    momentum, weight_decay : float
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(mean, group["momentum"])  # Nesterov momentum
        matrix = ahead.flatten(1)
        size = LIKE_ADAMW * sqrt(max(matrix.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonal(matrix).reshape(parameter.shape), alpha=-group["lr"] * size)
