"""The exact data-consistency step of the network, for many scanners at once.

This is the linear-Gaussian part of Bayes' rule, which `likelihood` has for one scanner in NumPy. Combined with signals
``y = S V^T x + sigma xi``, an image with standard deviation r changes by ``V diag(g) (y - S V^T x)`` with
``g = S r^2 / (S^2 r^2 + sigma^2)``. Its deviation is reduced by the factor ``sqrt(1 - diag(V diag(S g) V^T))``.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Signals(NamedTuple):
    """Reduced signals of frames, scaled to images of root-mean-square about one.

    There are G scanners with K frames each; at run time G = 1. With singular values of zero nothing is measured.
    """

    y: Tensor  # (G, K, R) reduced signals
    noise: Tensor  # (G, K) their noise
    singular_values: Tensor  # (G, R) S
    basis: Tensor  # (G, N, R) V
    forward: Tensor  # (G, N, R) V S: from images to their signals
    square: Tensor  # (G, N, R) V, squared

    @classmethod
    def of(cls, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> "Signals":
        """Create them from the arrays of a calibration and its frames."""
        return cls(y, noise, singular_values, basis, basis * singular_values[:, None], basis.square())


def gains(signals: Signals, spread: Tensor) -> Tensor:
    """``S r^2 / (S^2 r^2 + sigma^2)`` for spreads r (G, K, W), (G, K, W, R): see `likelihood`."""
    s, noise, wide = signals.singular_values[:, None, None, :], signals.noise[:, :, None, None], spread[..., None]
    strength = wide * s
    return wide * strength / (strength * strength + noise * noise)


def unseen(signals: Signals, gain: Tensor) -> Tensor:
    """Logarithm of the factor that reduces the standard deviation, for gains (G, K, W, R): (G, K, W, N)."""
    explained = from_basis(gain * signals.singular_values[:, None, None, :], signals.square)
    return 0.5 * torch.log((1 - explained).clamp_min(1e-6))


def signal_changes(signals: Signals, mean: Tensor, gain: Tensor) -> Tensor:
    """Change of a mean (G, K, 1, N) by the signals, for gains (G, K, W, R): (G, K, W, N)."""
    return from_basis(gain * (signals.y[:, :, None] - to_basis(mean, signals.forward)), signals.basis)


def to_basis(images: Tensor, basis: Tensor) -> Tensor:
    """Project images (G, K, W, N) onto each scanner's basis (G, N, R): (G, K, W, R)."""
    if len(basis) == 1:  # at run time one product suffices, without rearrangement
        return images @ basis[0]
    return (images.flatten(1, 2) @ basis).reshape(*images.shape[:3], -1)


def from_basis(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Images (G, K, W, N) from coefficients (G, K, W, R) of each scanner's basis (G, N, R)."""
    if len(basis) == 1:
        return coefficients @ basis[0].T
    return (coefficients.flatten(1, 2) @ basis.transpose(1, 2)).reshape(*coefficients.shape[:3], -1)
