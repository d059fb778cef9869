"""Receive noise at a given signal-to-noise ratio: white, coloured, spiky and drifting.

SNR means ``20 log10(||signal|| / ||noise||)`` over the selected rows of a frame (2-norms). The paper's noise is white
complex Gaussian; real scanners add 1/f noise and lines at the harmonics of the drive frequencies (coloured), rare large
outliers (spiky), and a slowly changing feed-through (drift).
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.limits import decibels

NoiseKind = Literal["white", "coloured", "spiky", "drift"]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)


def row_profile(
    frequencies: NDArray[np.float64], drive: tuple[float, ...] = (), knee: float = 150e3
) -> NDArray[np.float64]:
    """Relative standard deviation of coloured noise per frequency, (K,), root-mean-square one.

    Parameters
    ----------
    frequencies : (K,)
        In Hz.
    drive : tuple of float
        Drive frequencies in Hz, around whose harmonics the noise doubles to quadruples.
    knee : float
        Frequency in Hz below which 1/f noise exceeds the white floor.
    """
    profile = np.sqrt(1.0 + (knee / np.maximum(frequencies, 1e3)) ** 2)
    for base in drive:
        distance = np.abs(frequencies - base * np.round(frequencies / base))
        profile = profile * (1.0 + 2.0 * np.exp(-0.5 * (distance / 1e3) ** 2))
    return np.asarray(profile / np.sqrt(np.mean(profile**2)))


def complex_noise(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    kind: NoiseKind = "white",
    profile: NDArray[np.float64] | None = None,
) -> NDArray[np.complex128]:
    """Noise of mean power one per row and frame.

    Parameters
    ----------
    shape : (F, ..., K)
        Frames first, rows after.
    rng : numpy Generator
        Source of randomness.
    kind : str
        ``white``; ``coloured``: the profile's standard deviations; ``spiky``: Student t with 3 degrees of freedom, for
        real and imaginary part, so that one row in some hundreds is ten times off; ``drift``: white plus a fixed
        pattern whose amplitude changes slowly from frame to frame and carries half of the power.
    profile : broadcastable to shape[1:], optional
        Relative standard deviation per row, for ``coloured``.

    Raises
    ------
    InputError
        For an unknown kind, or ``coloured`` without a profile.
    """
    white: NDArray[np.complex128] = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    if kind == "white":
        return white
    if kind == "coloured":
        if profile is None:
            raise InputError("coloured noise: no profile given, expected the relative deviation of every row")
        return np.asarray(white * profile)
    if kind == "spiky":
        freedom = 3.0
        return np.asarray(white * np.sqrt((freedom - 2) / rng.chisquare(freedom, shape)))
    if kind == "drift":
        pattern = (rng.standard_normal(shape[1:]) + 1j * rng.standard_normal(shape[1:])) / np.sqrt(2)
        walk = np.cumsum(rng.standard_normal(shape[0])) / np.sqrt(np.arange(1, shape[0] + 1))
        return np.asarray((white + walk.reshape(-1, *[1] * (len(shape) - 1)) * pattern) / np.sqrt(2))
    raise InputError(f"noise kind '{kind}': expected one of {', '.join(NOISE_KINDS)}")


def add_noise(
    signals: NDArray[np.complexfloating],
    snr_db: float,
    rng: np.random.Generator,
    kind: NoiseKind = "white",
    profile: NDArray[np.float64] | None = None,
) -> NDArray[np.complex64]:
    """Add noise to the selected rows of frames, at exactly the given SNR in every frame.

    Parameters
    ----------
    signals : (F, M) complex
        Noise-free selected rows.
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` per frame. A frame of zeros stays zero.
    rng, kind, profile
        See `complex_noise`.

    Returns
    -------
    (F, M) complex64
    """
    if signals.ndim != 2:
        raise InputError(f"add_noise: signals {signals.shape}: expected (frames, rows)")
    noise = complex_noise(signals.shape, rng, kind, profile)
    return np.asarray(signals + noise * noise_strength(signals, noise, snr_db)[:, None], dtype=np.complex64)


def noise_strength(
    signals: NDArray[np.complexfloating], noise: NDArray[np.complexfloating], snr_db: float
) -> NDArray[np.float64]:
    """Factor of the noise of each frame (F,), with which selected rows (F, M) have exactly this SNR in dB."""
    loudness: NDArray[np.float64] = np.linalg.norm(signals, axis=1) / np.linalg.norm(noise, axis=1)
    return loudness * 10 ** (-decibels(snr_db) / 20)
