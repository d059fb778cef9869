"""Spectra of the magnetisation for a Lissajous trajectory, from harmonics instead of samples over time.

With the Langevin function as a sum of Gaussians (`langevin`), the relative magnetisation along axis d is

    M_d(r, t) = sum_q w_q u_d exp(-e_q u_d^2) prod_(c != d) exp(-e_q u_c^2)
    u_d(r, t) = beta (G_d r_d + A_d cos(2 pi f_d t))

Each factor depends on one coordinate and one drive frequency. Factor d repeats after D_d samples (the divider of its
frequency), so a short FFT gives its harmonics. The spectrum at frequency k is the sum of their products over all
mixtures m of harmonics with ``m . f = k``, modulo the sampling rate, which includes aliasing. The result equals the FFT
over time to the precision of the Gaussians, and any selection of frequencies can be computed. Averages over sub-voxels
are averages of factors. Cosines are even, so the spectra are real.

A row of a volume of n^3 voxels takes ``6 n^3 P Q`` operations for P mixtures, about 10, and Q Gaussians, about 30.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mpi_fast.langevin import gaussian_sum

Array = NDArray[np.float32]
BLOCK_BYTES = 16 << 20  # size of intermediate products
NEGLIGIBLE = 1e-11  # harmonics, and mixtures of them, below this share of the strongest are left out


def magnetisation_spectra(
    fields: list[NDArray[np.float64]], sub_voxels: int, wanted: NDArray[np.integer]
) -> Iterator[tuple[slice, Array]]:
    """Spectra of each voxel's mean magnetisation relative to saturation, a few frequencies at a time.

    Parameters
    ----------
    fields : per axis (n * sub_voxels, D) float64
        u_d at the points of axis d, x first, over one period of its drive field.
    sub_voxels : int
        Number of neighbouring points of each axis in a voxel.
    wanted : (K',) int
        Indices of frequencies of an FFT over lcm(D) samples.

    Yields
    ------
    part : slice
        Part of the wanted frequencies.
    spectra : (axes, k, N) float32
        Voxels with x fastest.
    """
    dividers = tuple(u.shape[1] for u in fields)
    even, odd = _harmonics(fields, sub_voxels)
    mixtures, counts = _mixtures(even, odd, dividers, wanted)
    # Products over all axes except the last are the largest arrays: (k, voxels of a plane, P Q).
    voxels = int(np.prod([factors.shape[1] for factors in even[:-1]]))
    step = max(1, BLOCK_BYTES // (4 * voxels * mixtures.shape[2] * even[0].shape[2]))
    for start in range(0, len(wanted), step):
        part = slice(start, min(start + step, len(wanted)))
        harmonic = mixtures[:, part, : counts[part].max()]
        spectra = [
            _mixed([(odd if axis == along else even)[axis][harmonic[axis]] for axis in range(len(fields))])
            for along in range(len(fields))
        ]
        yield part, np.stack(spectra) * np.float32(np.lcm.reduce(dividers))


def _harmonics(fields: list[NDArray[np.float64]], sub_voxels: int) -> tuple[list[Array], list[Array]]:
    """Harmonics of each axis' factors, averaged over sub-voxels: per axis (D, n, Q) float32.

    Returns
    -------
    even : of ``exp(-e_q u^2)``, with the weight w_q in the first axis' factors
    odd : of ``u exp(-e_q u^2)``, likewise
    """
    exponents, weights = gaussian_sum(float(np.sqrt(sum(np.abs(u).max() ** 2 for u in fields))))
    even: list[Array] = []
    odd: list[Array] = []
    for axis, u in enumerate(fields):
        gaussian = np.exp(-exponents[:, None, None] * u**2)
        if axis == 0:
            gaussian *= weights[:, None, None]
        for factors, factor in ((even, gaussian), (odd, u * gaussian)):
            mean = factor.reshape(len(weights), -1, sub_voxels, u.shape[1]).mean(axis=2)
            spectrum = np.fft.fft(mean, axis=-1).real / u.shape[1]
            # Products of rounding errors would be denormal numbers, which are slow.
            spectrum[np.abs(spectrum) < NEGLIGIBLE * np.abs(spectrum).max()] = 0.0
            factors.append(np.ascontiguousarray(spectrum.transpose(2, 1, 0), dtype=np.float32))
    return even, odd


def _mixtures(
    even: list[Array], odd: list[Array], dividers: tuple[int, ...], wanted: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The mixtures of harmonics of the drive frequencies that give each wanted frequency.

    Returns
    -------
    mixtures : (axes, K', P)
        All mixtures at a frequency, the strongest first.
    counts : (K',)
        Number of mixtures of each frequency that are not negligible, at least one.
    """
    samples = int(np.lcm.reduce(dividers))
    cycles = samples // np.asarray(dividers)  # cycles of each drive frequency in a period
    harmonics = np.indices(dividers).reshape(len(dividers), -1)
    # The map from harmonics to frequency is a group homomorphism, so every frequency has equally many mixtures.
    of_frequency = np.argsort(cycles @ harmonics % samples, kind="stable").reshape(samples, -1)[wanted]
    mixtures = harmonics[:, of_frequency]
    strength = [np.maximum(np.abs(a).max(axis=1), np.abs(b).max(axis=1)) for a, b in zip(even, odd, strict=True)]
    bound = np.zeros(mixtures.shape[1:], dtype=np.float32)
    for node in range(strength[0].shape[1]):
        bound += np.prod([s[m, node] for s, m in zip(strength, mixtures, strict=True)], axis=0)
    order = np.argsort(-bound, axis=1)
    counts = np.maximum(1, (bound > NEGLIGIBLE * bound.max(initial=0.0)).sum(axis=1))
    return np.take_along_axis(mixtures, order[None, :, : counts.max(initial=1)], axis=2), counts


def _mixed(factors: list[Array]) -> Array:
    """Sum over mixtures and Gaussians of the product over axes: factors (k, P, n, Q), x first, to (k, N)."""
    rows = len(factors[0])
    flat = [f.transpose(0, 2, 1, 3).reshape(rows, f.shape[2], -1) for f in factors]  # (k, n, P Q)
    product = flat[0]
    for factor in flat[1:-1]:
        product = (factor[:, :, None] * product[:, None]).reshape(rows, -1, factor.shape[2])
    return np.asarray(flat[-1] @ product.transpose(0, 2, 1)).reshape(rows, -1)
