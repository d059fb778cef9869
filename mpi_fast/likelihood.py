"""The likelihood of an image given its signals: the linear-Gaussian part of Bayes' rule, exact and fast.

A frame is reduced to ``y = S V^T x + sigma xi`` (see `calibration`). Combined with a Gaussian ``x ~ N(m, r^2 I)`` it
gives a Gaussian again, diagonal in V:

    mean      m + V diag(g) (y - S V^T m),         g = S r^2 / (S^2 r^2 + sigma^2)
    variance  r^2 (1 - diag(V diag(S g) V^T))      per voxel

This formula has two uses, both for images of root-mean-square one (a prior N(0, I)):

* m = 0, r one of `WIDTHS`: the linear estimate from the signals alone. The network starts with it (`training.network`),
  and iterative methods start with r = 1;
* m another estimate of the image, r its uncertainty: the data-consistency (proximal) step ``argmin ||S V^T x - y||^2 /
  sigma^2 + ||x - m||^2 / r^2``. Each block of the network uses it, and so does plug and play (`methods.plug_and_play`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

Array = NDArray[np.float32]

# Standard deviations of the white priors for which the network gets linear estimates, relative to images of
# root-mean-square one. Narrow priors use only the best-measured components, wide ones also show weak components.
WIDTHS = (1.0, 1 / 9, 1 / 3, 3.0, 9.0)

# Energies of the signal in y, in standard deviations of the energy of noise. The first is the minimum for the scale, so
# that a frame without particles is scaled by its noise rather than by a random remainder. A frame with less than the
# second is empty; one with more than the third certainly contains signal.
DETECTION = 2.0
EMPTY, CERTAIN = 5.0, 8.0
# Phantoms are smoother than white noise, so their signals are stronger: an image of root-mean-square one has about the
# signal energy of a white image of this root-mean-square.
SIGNAL_PER_IMAGE = 2.0


def signal_scale(y: NDArray[np.floating], singular_values: NDArray[np.floating], noise: Array) -> Array:
    """Estimate the root-mean-square of each frame's image from the energy of its reduced signals.

    ``E ||y||^2 = s^2 sum(S^2) + R sigma^2`` for a white image of variance s^2; solved for s, with a minimum given by
    the noise. It need not be exact, because training scales its images by the same rule.

    Parameters
    ----------
    y : (F, R)
        Reduced signals.
    singular_values : (R,)
        Singular values of the calibration.
    noise : (F,)
        Noise standard deviation of each frame.

    Returns
    -------
    (F,) float32 in the unit of the image; proportional to the signals.
    """
    variance = np.square(noise, dtype=np.float64)
    excess = np.maximum(_excess_energy(y, noise), DETECTION) * np.sqrt(2 * y.shape[-1]) * variance
    power = np.square(singular_values, dtype=np.float64).sum()
    return np.asarray(np.sqrt(excess / power) / SIGNAL_PER_IMAGE, dtype=np.float32)


def signal_presence(y: NDArray[np.floating], noise: Array) -> Array:
    """Evidence of signal in frames: 0 if noise alone explains them, 1 beyond doubt, (F,) float32.

    The energy of noise in y is ``sigma^2 chi^2(R)``, so frames without particles get exactly 0, except one
    in many thousands. Useful frames are far above: one of 350 rows and rank 150 has 1 from an SNR of -7 dB.
    """
    presence = (_excess_energy(y, noise) - EMPTY) / (CERTAIN - EMPTY)
    return np.asarray(np.clip(presence, 0.0, 1.0), dtype=np.float32)


def _excess_energy(y: NDArray[np.floating], noise: Array) -> NDArray[np.float64]:
    """Energy of y (F, R) beyond that of noise, in standard deviations of the latter, (F,); 0 for a frame of zeros."""
    rank = y.shape[-1]
    variance = np.square(noise, dtype=np.float64)
    excess = np.square(y, dtype=np.float64).sum(axis=-1) - rank * variance
    return np.asarray(excess / (np.sqrt(2 * rank) * np.where(variance > 0, variance, 1.0)))


@dataclass(frozen=True)
class Likelihood:
    """The reduced signals of a batch of frames, as a function of the image.

    Attributes
    ----------
    y : (F, R) float32
        Reduced signals.
    singular_values : (R,) float32
        S of the calibration.
    basis : (N, R) float32
        V of the calibration.
    noise : (F,) float32
        Noise standard deviation of each frame, positive.
    """

    y: Array
    singular_values: Array
    basis: Array
    noise: Array

    def __post_init__(self) -> None:
        frames, rank = self.y.shape
        voxels = self.basis.shape[0]
        if self.singular_values.shape != (rank,) or self.basis.shape != (voxels, rank):
            raise InputError(
                f"likelihood: y {self.y.shape}, S {self.singular_values.shape}, V {self.basis.shape}: "
                f"expected (F, R), (R,), (N, R)"
            )
        if self.noise.shape != (frames,) or not np.all(self.noise > 0):
            raise InputError(f"likelihood: noise {self.noise.shape}, expected ({frames},) positive numbers")

    def gain(self, spread: float) -> Array:
        """``S r^2 / (S^2 r^2 + sigma^2)`` for r = spread, (F, R)."""
        signal = np.float32(spread) * self.singular_values
        return np.asarray(np.float32(spread) * signal / (signal**2 + self.noise[:, None] ** 2))

    def combine(self, mean: Array, spread: float) -> Array:
        """Mean of N(mean, spread^2 I) given the signals.

        Parameters
        ----------
        mean : (F, N) float32
            Image estimates.
        spread : float
            Their standard deviation, positive.

        Returns
        -------
        (F, N) float32
        """
        residual = self.y - (mean @ self.basis) * self.singular_values
        return np.asarray(mean + (residual * self.gain(spread)) @ self.basis.T)

    def noise_floor(self, energy: Array) -> Array:
        """Root-mean-square over voxels of the noise in the mean of white images, (F,).

        Parameters
        ----------
        energy : (R,)
            Mean square over the voxels of each column of the basis.
        """
        return np.asarray(np.sqrt(np.square(self.gain(1.0) * self.noise[:, None]) @ energy), dtype=np.float32)
