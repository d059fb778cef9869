"""Simulated measurements as a scanner delivers them: calibration scans and frames, with noise and background.

`measure_matrix` moves a delta sample through a `Scanner`, with background scans in between; `Receiver` measures
phantoms; `save_matrix` and `save_frames` write what they deliver as MDF files. Spectra are (C, K, frames) where they
belong to a matrix and (frames, C, K) elsewhere, as MDF files have them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.mdf import Acquisition, Metadata, write_measurement, write_system_matrix
from mpi_fast.noise import NoiseKind, complex_noise, row_profile
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner

Spectra = NDArray[np.complex64]
BACKGROUND_EVERY, BACKGROUND_BLOCK = 19, 2  # voxels between two background scans, and frames of each scan
CHUNK = 64  # frames simulated at once
FEED_THROUGH = 5.0  # strength of the empty scanner's signal, in noise deviations


@dataclass(frozen=True)
class MeasuredMatrix:
    """A system matrix as measured, and what a real scanner does not tell: its true value.

    Attributes
    ----------
    scanner : Scanner
    truth : (C, K, N) complex64
        Without noise or background.
    foreground, background : (C, K, N), (C, K, B) complex64
        Spectra with and without the delta sample.
    foreground_index, background_index : (N,), (B,) int
        When each was acquired, counted over all frames.
    """

    scanner: Scanner
    truth: Spectra
    foreground: Spectra
    background: Spectra
    foreground_index: NDArray[np.int64]
    background_index: NDArray[np.int64]

    def calibrate(self, rows: RowFilter = RowFilter()) -> Calibration:  # noqa: B008 (frozen)
        """Calibrate from the measured matrix, as from a file."""
        return Calibration.from_arrays(
            self.foreground,
            self.scanner.frequencies,
            *self.scanner.plane,
            background=self.background,
            order=(self.foreground_index, self.background_index),
            rows=rows,
        )


def noise_profile(scanner: Scanner) -> NDArray[np.float64]:
    """Relative noise deviation per frequency (K,): 1/f noise, and lines around the harmonics of the drive field."""
    drive = tuple(scanner.base_frequency / divider for divider in scanner.dividers)
    return row_profile(scanner.frequencies, drive)


def measure_matrix(scanner: Scanner, snr_db: float, rng: np.random.Generator) -> MeasuredMatrix:
    """Measure a system matrix: coloured noise, a drifting background, and background scans every few voxels.

    Parameters
    ----------
    scanner : Scanner
    snr_db : float
        ``20 log10(||A|| / ||noise||)`` (Frobenius norms) over all rows from 80 kHz.
    rng : numpy Generator
    """
    if not np.isfinite(snr_db):
        raise InputError(f"calibration SNR {snr_db} dB: expected a number")
    truth = scanner.system_matrix()
    voxels = truth.shape[2]
    profile = np.broadcast_to(noise_profile(scanner), truth.shape[:2])
    band = scanner.frequencies >= RowFilter().min_frequency
    signal = np.linalg.norm(truth[:, band]) / np.sqrt(voxels)
    deviation = profile * (signal / np.linalg.norm(profile[:, band]) * 10 ** (-snr_db / 20))

    blocks = -(-voxels // BACKGROUND_EVERY) + 1
    starts = np.minimum(np.arange(blocks) * BACKGROUND_EVERY, voxels) + np.arange(blocks) * BACKGROUND_BLOCK
    background_index = (starts[:, None] + np.arange(BACKGROUND_BLOCK)).ravel()
    total = voxels + len(background_index)
    foreground_index = np.setdiff1d(np.arange(total), background_index)

    empty = FEED_THROUGH * complex_noise((1, *deviation.shape), rng)[0] * deviation
    drift = 1.0 + np.linspace(0.0, rng.normal(0.0, 0.5), total)
    frames = complex_noise((total, *deviation.shape), rng) * deviation + drift[:, None, None] * empty
    frames = np.ascontiguousarray(frames.transpose(1, 2, 0), dtype=np.complex64)
    return MeasuredMatrix(
        scanner=scanner,
        truth=truth,
        foreground=truth + frames[..., foreground_index],
        background=frames[..., background_index],
        foreground_index=foreground_index,
        background_index=background_index,
    )


class Receiver:
    """Measures phantoms with the scanner of a `MeasuredMatrix`.

    Parameters
    ----------
    matrix : MeasuredMatrix
        Signals come from its true value.
    selection : (C, K) bool
        The rows over which the SNR is meant: those of a calibration.
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over these rows, exactly, in every frame.
    rng : numpy Generator
    kind : str
        See `noise.complex_noise`. ``drift`` wanders within each call of `frames`.
    feed_through : bool
        Add the constant signal of the empty scanner, which background frames let one subtract.
    """

    def __init__(
        self,
        matrix: MeasuredMatrix,
        selection: NDArray[np.bool_],
        snr_db: float,
        rng: np.random.Generator,
        kind: NoiseKind = "white",
        *,
        feed_through: bool = False,
    ) -> None:
        if not np.isfinite(snr_db):
            raise InputError(f"SNR {snr_db} dB: expected a number")
        self.scanner, self._truth = matrix.scanner, matrix.truth
        self._selection, self._rng, self._kind = selection, rng, kind
        self._amplitude = 10 ** (-snr_db / 20)
        self._profile = np.broadcast_to(noise_profile(self.scanner), selection.shape)
        self._level = 0.0  # noise deviation per row of the last frames
        pattern = complex_noise((1, *selection.shape), rng)[0] * FEED_THROUGH
        self._pattern = pattern if feed_through else np.zeros_like(pattern)
        self._empty: Spectra | None = None

    def frames(self, images: NDArray[np.float32]) -> Spectra:
        """Measure images (F, ny, nx): spectra (F, C, K) complex64. An empty image gives a frame without noise."""
        signals = np.tensordot(images.reshape(len(images), -1), self._truth, axes=(1, 2))
        noise = complex_noise(signals.shape, self._rng, self._kind, self._profile)
        loudness = np.linalg.norm(signals[:, self._selection], axis=1)
        scale = self._amplitude * loudness / np.linalg.norm(noise[:, self._selection], axis=1)
        if self._empty is None:  # as strong as the noise of a typical frame
            self._level = float(np.median(scale))
            self._empty = (self._level * self._pattern).astype(np.complex64)
        return np.asarray(signals + scale[:, None, None] * noise + self._empty, dtype=np.complex64)

    def background(self, count: int) -> Spectra:
        """Measure nothing, with the noise of a typical frame: (count, C, K) complex64; call `frames` first."""
        if self._empty is None:
            raise InputError("background: measure frames first, whose noise level it takes")
        noise = complex_noise((count, *self._selection.shape), self._rng, self._kind, self._profile)
        return np.asarray(self._level * noise + self._empty, dtype=np.complex64)


# -- files ------------------------------------------------------------------------------------------------------------


def acquisition_of(scanner: Scanner) -> Acquisition:
    """How a simulated scanner acquires, in MDF's words."""
    gx, gy = scanner.gradient
    return Acquisition(
        base_frequency=scanner.base_frequency,
        divider=np.array(scanner.dividers, dtype=np.int64)[:, None],
        strength=np.array(scanner.drive_amplitude)[None, :, None],
        phase=np.full((1, 2, 1), np.pi / 2),  # MDF's drive fields are sines, the simulation's are cosines
        gradient=np.diag([gx, gy, -gx - gy]),
        bandwidth=scanner.base_frequency / 2,
        num_samples=scanner.num_samples,
        num_channels=len(scanner.receive.resonance),
        cycle=scanner.cycle,
    )


def metadata_of(scanner: Scanner, description: str = "") -> Metadata:
    """Who measured what, where there is nobody."""
    return Metadata(
        description=description,
        simulation=True,
        scanner="mpi-fast simulation",
        tracer="Langevin model",
        concentration=scanner.concentration,
        volume=1e3 * scanner.voxel_size[0] * scanner.voxel_size[1] * scanner.sample_height,
    )


def save_matrix(path: str | Path, matrix: MeasuredMatrix, description: str = "") -> None:
    """Write a measured matrix as an MDF system matrix, background frames where they were acquired."""
    scanner = matrix.scanner
    (ny, nx), (dy, dx), height = scanner.grid, scanner.voxel_size, scanner.sample_height
    write_system_matrix(
        path,
        matrix.foreground,
        size=(nx, ny, 1),
        field_of_view=(nx * dx, ny * dy, height),
        acquisition=acquisition_of(scanner),
        background=matrix.background,
        background_index=matrix.background_index,
        delta_sample_size=(dx, dy, height),
        metadata=metadata_of(scanner, description),
    )


def save_frames(
    path: str | Path,
    receiver: Receiver,
    images: NDArray[np.float32],
    background: int = 0,
    *,
    time_domain: bool = True,
    description: str = "",
    report: Callable[[int], None] = lambda frames: None,
) -> None:
    """Measure images (F, ny, nx) and write them as an MDF measurement, a few frames at a time.

    Parameters
    ----------
    path : str or Path
    receiver : Receiver
    images : (F, ny, nx)
    background : int
        Background frames to measure; without any the file says that it is background-corrected.
    time_domain : bool
        Store samples in V rather than spectra.
    description : str
        Kept in the file.
    report : callable
        Called with the number of frames just measured.
    """
    scanner = receiver.scanner

    def stored(spectra: Spectra) -> NDArray[np.float32] | Spectra:
        return np.fft.irfft(spectra, scanner.num_samples).astype(np.float32) if time_domain else spectra

    def measured() -> Iterator[NDArray[np.float32] | Spectra]:
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            yield stored(receiver.frames(part))
            report(len(part))

    def empty() -> Iterator[NDArray[np.float32] | Spectra]:
        for start in range(0, background, CHUNK):
            yield stored(receiver.background(min(CHUNK, background - start)))

    write_measurement(
        path,
        measured(),
        acquisition=acquisition_of(scanner),
        background=empty(),
        background_corrected=background == 0,
        metadata=metadata_of(scanner, description),
    )
