"""Three numbers for the part of a frame that the calibration does not explain.

The whitened signals are ``b_r = U y + r`` (see `calibration`), and x is the image made from them. The numbers are:

outside     energy of r per direction, relative to the noise in background frames. It is large after a lost
            synchronisation, or with another scanner.
receiver    the part of r that a changed receive chain would cause. If gain and phase of the chain change slightly and
            smoothly with frequency, the signals s of a channel change by a multiple of ``f^2 s`` (a shifted resonance)
            and of ``i f s`` (a delay). These are few directions outside the range of A, with little energy of noise.
image       ``||y - S V^T x||^2 / (R sigma^2)``, the part within the range of A that no plausible image explains. It is
            large with other particles.

The last two are relative to the frame's own noise level and need no background frames. The noise of single rows
relative to the calibration, `RowNoise`, comes from background frames or from the residuals of many frames.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.phantoms import FAMILIES, VOLUMES, generate
from mpi_fast.reduction import ReducedFrames, rows_of

Array = NDArray[np.float64]
Complex = NDArray[np.complexfloating[Any, Any]]
PRIOR = 8.0  # weight, in frames, of the assumption that the noise of the rows is that of the calibration
STRONG = 0.03  # share of a frame's energy above which the receive chain of a channel is tested
SPIKE = 4.0  # standard deviations at which single rows are clipped
IMAGES, MOST, MANY = 64, 0.98, 0.9  # number of typical images, and the quantiles over them that define the leeways
IMAGES_OFF = 3e-5  # energy of the error of the network's images without noise, relative to the signals


@dataclass(frozen=True)
class RowNoise:
    """Noise of each row of a measurement, relative to that of the calibration.

    Attributes
    ----------
    energy : (M,) float64
        Sum over frames of the squared whitened noise of each row (mean of real and imaginary part), relative to the
        mean over the rows of each frame.
    frames : float
        Effective number of frames, after the loss by subtracting their mean.
    variance : float, or None
        Noise variance in background frames, the mean over the rows in whitened units; None without such frames.
    """

    energy: Array
    frames: float
    variance: float | None = None

    @classmethod
    def unknown(cls, rows: int) -> "RowNoise":
        """Unknown noise."""
        return cls(np.zeros(rows), 0.0)

    @classmethod
    def of_background(cls, calibration: Calibration, energy: Array, frames: int) -> "RowNoise":
        """Noise from background frames: ``energy`` (M,) is the sum of their squared deviations from their mean.

        The noise remains unknown with fewer than two frames, or if all frames are equal.
        """
        whitened = energy * np.square(calibration.weights) / 2
        total = float(whitened.mean())
        if frames < 2 or not total > 0:
            return cls.unknown(calibration.num_rows)
        return cls(whitened / total * (frames - 1), frames - 1.0, total / (frames - 1))

    def with_frames(self, energy: Array) -> "RowNoise":
        """Add the noise energy (F, M) of more frames, each relative to its mean over the rows."""
        return RowNoise(self.energy + energy.sum(axis=0), self.frames + len(energy), self.variance)

    @property
    def profile(self) -> Array:
        """Variance of each row relative to their mean, (M,)."""
        return np.asarray((PRIOR + self.energy) / (PRIOR + self.frames))


@dataclass(frozen=True)
class Misfit:
    """The misfit of F frames; see the description of this module.

    Attributes
    ----------
    outside : (F,) float64
        About one for noise alone; NaN without background frames.
    receiver : (F,) float64
        Mean per direction: about one for noise alone; NaN for frames without signal.
    image : (F,) float64
        About one; larger if the noise is so small that errors of the image dominate.
    implausible : (F,) float64
        The same residual, relative to noise plus the usual error of images: at most about one at any noise level.
    directions : (F,) float64
        Number of directions in the mean ``receiver``; 0 for frames without signal.
    rows : (F, M) float64
        Squared residual of each row, relative to its expectation for noise like that of the calibration.
    """

    outside: Array
    receiver: Array
    image: Array
    implausible: Array
    directions: Array
    rows: Array

    def of(self, frames: NDArray[np.integer[Any]]) -> "Misfit":
        """The misfit of some of the frames."""
        return Misfit(**{name: values[frames] for name, values in vars(self).items()})


class MisfitMeter:
    """Measures the misfit of frames to one calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        p = calibration.projection
        lengths = np.einsum("rm,rm->m", p.real, p.real) + np.einsum("rm,rm->m", p.imag, p.imag)
        leverage = lengths / np.square(calibration.weights) / 2
        self._left = np.maximum(1 - leverage, 0.05)  # share of each row's noise outside the range of A
        channel, frequency = np.nonzero(calibration.selection)
        self._channels = np.stack([channel == one for one in np.unique(channel)]).astype(float)
        relative = calibration.frequencies[frequency] / calibration.frequencies[frequency].max()
        change = np.stack([relative**2, 1j * relative])
        self._changes = (self._channels[:, None] * change).reshape(-1, len(relative))  # (q, M)

    def __call__(
        self, rows: Complex, reduced: ReducedFrames, image: NDArray[np.floating[Any]], noise: RowNoise
    ) -> Misfit:
        """Measure.

        Parameters
        ----------
        rows : (F, M) complex
        reduced : ReducedFrames
            Reduction of these rows.
        image : (F, N)
            Images made from them.
        noise : RowNoise
        """
        calibration, x = self._calibration, np.asarray(image, np.float64)
        y, variance = reduced.y.astype(np.float64), np.square(reduced.noise, dtype=np.float64)
        # In single precision, because a copy of a volume's basis in double precision would take longer than the rest.
        expected = (x.astype(np.float32) @ calibration.basis).astype(np.float64) * calibration.singular_values
        floor = np.where(variance > 0, variance, 1.0)
        left = np.square(y - expected).sum(axis=1)
        allowed = calibration.rank * floor + self.image_leeway * np.square(y).sum(axis=1)

        residual: Complex = rows * calibration.weights - self._whitened_fit(y)
        profile = noise.profile
        limit = SPIKE * np.sqrt(2 * floor[:, None] * profile)
        size = np.abs(residual)
        residual *= np.where(size > limit, limit / np.maximum(size, limit), 1.0)
        fit = self._whitened_fit(expected)
        energy, directions = self._receiver_energy(residual, fit, profile)
        leeway = self.receiver_leeway * np.square(np.abs(fit)).sum(axis=1)
        # The effect of a changed chain is no noise, so it is subtracted from the noise level, up to half of the level.
        outside = 2 * calibration.num_rows - calibration.rank
        quiet = np.maximum(variance - np.maximum(energy - directions * variance, 0) / outside, variance / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            receiver = energy / (directions * quiet + leeway)

        # Noise of the calibration itself also appears outside, in proportion to the signals.
        own = np.square(x).sum(axis=1) if calibration.noise_known else 0.0
        seen = np.nan if noise.variance is None else noise.variance + own
        squares = np.square(np.abs(residual)) / 2 / self._left
        return Misfit(
            outside=variance / seen + np.zeros(len(rows)),
            receiver=np.where(directions > 0, receiver, np.nan),
            image=left / (calibration.rank * floor),
            implausible=left / allowed,
            directions=directions,
            rows=squares / np.maximum(squares.mean(axis=1, keepdims=True), np.finfo(float).tiny),
        )

    def _reduced(self, whitened: Complex) -> Array:
        """``U^T b`` of whitened signals (..., M)."""
        return np.asarray(((whitened / self._calibration.weights) @ self._calibration.projection.T).real)

    def _whitened_fit(self, y: Array) -> Complex:
        """``U y``, whitened signals (..., M) within the range of A."""
        return rows_of(y, self._calibration.projection, self._calibration.weights)

    @cached_property
    def _typical(self) -> tuple[Complex, Array, Array]:
        """Typical images: whitened signals (F, M) by the full matrix, their y, and y by the reduced matrix, (F, R)."""
        calibration = self._calibration
        families = list(FAMILIES if len(calibration.grid) == 2 else VOLUMES)
        images = generate(families, IMAGES, calibration.grid, seed=0).reshape(IMAGES, -1)
        rows = (images @ calibration.matrix.T) * calibration.weights
        seen = np.square(np.abs(rows)).sum(axis=1) > 0
        expected = images @ calibration.basis * calibration.singular_values
        return rows[seen], self._reduced(rows)[seen], expected[seen]

    @cached_property
    def receiver_leeway(self) -> float:
        """Energy, relative to the signals, that fitting frames have in the directions of a changed receive chain.

        It comes from the truncated directions of A; most images have less than this value.
        """
        rows, y, expected = self._typical
        fit = self._whitened_fit(expected)
        energy, _ = self._receiver_energy(rows - self._whitened_fit(y), fit, np.ones(rows.shape[1]))
        signal = np.square(np.abs(fit)).sum(axis=1)
        return float(np.quantile(energy / signal, MOST)) if len(signal) else 0.0

    @cached_property
    def image_leeway(self) -> float:
        """Energy, relative to the signals, of usual image errors, by the network and by the reduction of A."""
        _, y, expected = self._typical
        off = np.square(y - expected).sum(axis=1) / np.square(y).sum(axis=1)
        return IMAGES_OFF + (float(np.quantile(off, MANY)) if len(off) else 0.0)

    def _receiver_energy(self, residual: Complex, fit: Complex, profile: Array) -> tuple[Array, Array]:
        """Energy in the residual (F, M) that a changed chain may have caused, and its number of directions.

        This is the score test for a random change of each channel: the weight of a direction is the energy that such a
        change causes in it. For noise described by ``profile`` (M,), the energy is approximately a chi-square with this
        number of degrees of freedom; three moments agree (Pearson's approximation of a quadratic form).
        """
        loud = np.square(np.abs(fit)) @ self._channels.T
        strong = loud >= STRONG * loud.sum(axis=1, keepdims=True)
        change = fit[:, None] * self._changes
        length = np.linalg.norm(change, axis=2) * np.where(strong, 1.0, np.inf).repeat(2, axis=1)
        change = change / np.where(length > 0, length, np.inf)[..., None]
        change -= self._whitened_fit(self._reduced(change))
        covariance = ((change * profile) @ change.conj().swapaxes(1, 2)).real
        energy = np.square((change @ residual.conj()[..., None])[..., 0].real).sum(axis=1)
        moments = [np.trace(np.linalg.matrix_power(covariance, n), axis1=1, axis2=2) for n in (1, 2, 3)]
        first, second, third = (np.where(moments[0] > 0, moment, 1.0) for moment in moments)
        directions = np.where(moments[0] > 0, second**3 / third**2, 0.0)
        return np.maximum((energy - first) * np.sqrt(directions / second) + directions, 0.0), directions
