"""Simulated measurements: calibration scans and frames, with noise and background, as from a scanner.

`measure_matrix` moves a delta sample through a `Scanner`, with background scans in between; `Receiver` measures
phantoms; `save_matrix` and `save_frames` write their results as MDF files. As in MDF files, spectra are (C, K', frames)
in a matrix and (frames, C, K') elsewhere. K' are all K frequencies if the matrix fits `MATRIX_BYTES`, as for planes.
Larger matrices, as for volumes, keep only the strongest frequencies.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.limits import LOWEST_FREQUENCY, decibels
from mpi_fast.mdf import Acquisition, Metadata, write_measurement, write_system_matrix
from mpi_fast.noise import NoiseKind, complex_noise, noise_strength, row_profile
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner

Spectra = NDArray[np.complex64]
BACKGROUND_EVERY, BACKGROUND_BLOCK = 19, 2  # voxels between two background scans, and frames of each scan
CHUNK = 64  # frames simulated at once
FEED_THROUGH = 5.0  # strength of the empty scanner's signal, in noise deviations
MATRIX_BYTES = 512 << 20  # limit of a matrix, 3262 frequencies with 19^3 voxels and three channels
NOISE_BYTES = 256 << 20  # noise simulated at once
SURVEY = 11  # voxels per axis of a volume from which the strength of a row is estimated


@dataclass(frozen=True)
class MeasuredMatrix:
    """A measured system matrix, together with its true value, which is unknown for a real scanner.

    Attributes
    ----------
    scanner : Scanner
    frequency_index : (K',) int
        Indices of the scanner's frequencies in the matrix.
    truth : (C, K', N) complex64
        True matrix, without noise or background.
    foreground, background : (C, K', N), (C, K', B) complex64
        Spectra with and without the delta sample.
    foreground_index, background_index : (N,), (B,) int
        Position of each frame in the order of acquisition.
    """

    scanner: Scanner
    frequency_index: NDArray[np.int64]
    truth: Spectra
    foreground: Spectra
    background: Spectra
    foreground_index: NDArray[np.int64]
    background_index: NDArray[np.int64]

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Frequencies of the matrix, (K',) in Hz."""
        return self.scanner.frequencies[self.frequency_index]

    def calibrate(self, rows: RowFilter = RowFilter()) -> Calibration:  # noqa: B008 (frozen)
        """Calibrate from the measured matrix, as from a file."""
        return Calibration.from_arrays(
            self.foreground,
            self.frequencies,
            self.scanner.grid,
            self.scanner.field_of_view,
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
        ``20 log10(||A|| / ||noise||)`` (Frobenius norms) over all rows from 80 kHz; InputError as `limits.decibels`.
    rng : numpy Generator
    """
    decibels(snr_db, "calibration SNR")
    strength = row_strength(scanner)
    profile = np.broadcast_to(noise_profile(scanner), strength.shape)
    band = scanner.frequencies >= LOWEST_FREQUENCY
    level = np.linalg.norm(strength[:, band]) / np.linalg.norm(profile[:, band]) * 10 ** (-snr_db / 20)
    index = kept_frequencies(scanner, np.where(band, strength / profile, 0.0))
    truth, deviation = scanner.system_matrix(index), profile[:, index] * level
    voxels = truth.shape[2]

    blocks = -(-voxels // BACKGROUND_EVERY) + 1
    starts = np.minimum(np.arange(blocks) * BACKGROUND_EVERY, voxels) + np.arange(blocks) * BACKGROUND_BLOCK
    background_index = (starts[:, None] + np.arange(BACKGROUND_BLOCK)).ravel()
    total = voxels + len(background_index)
    foreground_index = np.setdiff1d(np.arange(total), background_index)

    empty = FEED_THROUGH * complex_noise((1, *deviation.shape), rng)[0] * deviation
    drift = 1.0 + np.linspace(0.0, rng.normal(0.0, 0.5), total)
    foreground, background = noisy(truth, deviation, foreground_index, background_index, rng)
    foreground += empty[..., None] * drift[foreground_index]
    background += empty[..., None] * drift[background_index]
    return MeasuredMatrix(scanner, index, truth, foreground, background, foreground_index, background_index)


def row_strength(scanner: Scanner) -> NDArray[np.float64]:
    """Root mean square of each row over the voxels, (C, K) in V; for fine volumes at a subset of the voxels."""
    if scanner.dimensions == 3 and max(scanner.grid) > SURVEY:
        grid = tuple(min(count, SURVEY) for count in scanner.grid)
        voxel_size = tuple(size / count for size, count in zip(scanner.field_of_view, grid, strict=True))
        # The amount of tracer in a voxel stays the same.
        concentration = scanner.concentration * scanner.sample_volume / float(np.prod(voxel_size))
        scanner = replace(scanner, grid=grid, voxel_size=voxel_size, concentration=concentration, sub_voxels=1)
    strength = np.empty((len(scanner.receive.resonance), len(scanner.frequencies)))
    for part, signals in scanner.blocks(np.arange(len(scanner.frequencies))):
        strength[:, part] = np.linalg.norm(signals, axis=2) / np.sqrt(signals.shape[2])
    return strength


def kept_frequencies(
    scanner: Scanner, merit: NDArray[np.float64], matrix_bytes: int | None = None
) -> NDArray[np.int64]:
    """Frequencies to keep in a matrix, ascending: all, or those whose best row has the highest merit (C, K)."""
    channels, count = merit.shape
    matrix_bytes = MATRIX_BYTES if matrix_bytes is None else matrix_bytes
    limit = max(1, matrix_bytes // (8 * channels * int(np.prod(scanner.grid))))
    return np.sort(np.argsort(-merit.max(axis=0), kind="stable")[:limit]) if limit < count else np.arange(count)


def noisy(
    truth: Spectra,
    deviation: NDArray[np.float64],
    foreground_index: NDArray[np.int64],
    background_index: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Spectra, Spectra]:
    """Measure a matrix and background frames with white noise: foreground (C, K', N) and background (C, K', B).

    The noise of a row has the ``deviation`` (C, K'); the indices assign the frames of the noise. Rows are processed in
    parts to save memory.
    """
    channels, count, _ = truth.shape
    total = len(foreground_index) + len(background_index)
    foreground = np.empty_like(truth)
    background = np.empty((channels, count, len(background_index)), dtype=np.complex64)
    step = max(1, NOISE_BYTES // (16 * channels * total))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        noise = complex_noise((total, channels, part.stop - start), rng) * deviation[:, part]
        frames = np.ascontiguousarray(noise.transpose(1, 2, 0), dtype=np.complex64)
        foreground[:, part] = truth[:, part] + frames[..., foreground_index]
        background[:, part] = frames[..., background_index]
    return foreground, background


class Receiver:
    """Measures phantoms with the scanner of a `MeasuredMatrix`.

    Parameters
    ----------
    matrix : MeasuredMatrix
        Signals come from its true value.
    selection : (C, K') bool
        Rows that define the SNR, those of a calibration.
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over these rows, exactly, in every frame (in a typical one if ``steady``);
        InputError if not a number.
    rng : numpy Generator
    kind : str
        See `noise.complex_noise`. With ``drift`` the feed-through changes within each call of `frames`.
    feed_through : bool
        Add the constant signal of the empty scanner, which can be subtracted with background frames.
    steady : bool
        Give all frames the same noise level, that of a typical first frame, as a scanner does.
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
        steady: bool = False,
    ) -> None:
        self.scanner, self._truth = matrix.scanner, matrix.truth
        self._selection, self._rng, self._kind = selection, rng, kind
        self._snr_db = decibels(snr_db)
        self.frequency_index = matrix.frequency_index
        self._profile = np.broadcast_to(noise_profile(self.scanner)[self.frequency_index], selection.shape)
        self._steady = steady
        self._level = 0.0  # noise deviation per row in the last frames
        pattern = complex_noise((1, *selection.shape), rng)[0] * FEED_THROUGH
        self._pattern = pattern if feed_through else np.zeros_like(pattern)
        self._empty: Spectra | None = None

    def frames(self, images: NDArray[np.float32]) -> Spectra:
        """Measure images (F, *grid): spectra (F, C, K') complex64. An empty image gives a frame without noise."""
        signals = np.tensordot(images.reshape(len(images), -1), self._truth, axes=(1, 2))
        noise = complex_noise(signals.shape, self._rng, self._kind, self._profile)
        scale = noise_strength(signals[:, self._selection], noise[:, self._selection], self._snr_db)
        if self._empty is None:  # its strength is that of the noise in a typical frame
            self._level = float(np.median(scale))
            self._empty = (self._level * self._pattern).astype(np.complex64)
        if self._steady:
            scale = np.full(len(scale), self._level)
        return np.asarray(signals + scale[:, None, None] * noise + self._empty, dtype=np.complex64)

    def background(self, count: int) -> Spectra:
        """Measure background frames with typical noise: (count, C, K') complex64; InputError before any `frames`."""
        if self._empty is None:
            raise InputError("background: measure frames first, whose noise level it takes")
        noise = complex_noise((count, *self._selection.shape), self._rng, self._kind, self._profile)
        return np.asarray(self._level * noise + self._empty, dtype=np.complex64)


# -- files ------------------------------------------------------------------------------------------------------------


def acquisition_of(scanner: Scanner) -> Acquisition:
    """Acquisition parameters of a simulated scanner in terms of MDF."""
    gx, gy = scanner.gradient[:2]
    gz = scanner.gradient[2] if scanner.dimensions == 3 else -gx - gy
    return Acquisition(
        base_frequency=scanner.base_frequency,
        divider=np.array(scanner.dividers, dtype=np.int64)[:, None],
        strength=np.array(scanner.drive_amplitude)[None, :, None],
        phase=np.full(
            (1, scanner.dimensions, 1), np.pi / 2
        ),  # MDF's drive fields are sines, the simulation's are cosines
        gradient=np.diag([gx, gy, gz]),
        bandwidth=scanner.base_frequency / 2,
        num_samples=scanner.num_samples,
        num_channels=len(scanner.receive.resonance),
        cycle=scanner.cycle,
    )


def metadata_of(scanner: Scanner, description: str = "") -> Metadata:
    """Metadata of a simulated measurement."""
    return Metadata(
        description=description,
        simulation=True,
        scanner="mpi-fast simulation",
        tracer="Langevin model",
        concentration=scanner.concentration,
        volume=1e3 * scanner.sample_volume,
    )


def save_matrix(path: str | Path, matrix: MeasuredMatrix, description: str = "") -> None:
    """Write a measured matrix as an MDF system matrix, with background frames in the order of acquisition."""
    scanner = matrix.scanner
    nx, ny, nz = (*scanner.grid[::-1], 1)[:3]
    dx, dy, dz = (*scanner.voxel_size[::-1], scanner.sample_height)[:3]
    write_system_matrix(
        path,
        matrix.foreground,
        size=(nx, ny, nz),
        field_of_view=(nx * dx, ny * dy, nz * dz),
        acquisition=acquisition_of(scanner),
        background=matrix.background,
        background_index=matrix.background_index,
        frequency_index=_selection(scanner, matrix.frequency_index),
        delta_sample_size=(dx, dy, dz),
        metadata=metadata_of(scanner, description),
    )


def _selection(scanner: Scanner, frequency_index: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Selection of frequencies for an MDF file; None if all are stored."""
    return frequency_index if len(frequency_index) < len(scanner.frequencies) else None


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
    """Measure images (F, *grid) and write them as an MDF measurement, a few frames at a time.

    Parameters
    ----------
    path : str or Path
    receiver : Receiver
    images : (F, *grid)
    background : int
        Number of background frames; with 0 the file states that it is background-corrected.
    time_domain : bool
        Store samples in V rather than spectra.
    description : str
        Stored in the file.
    report : callable
        Called with the number of frames just measured.

    Raises
    ------
    InputError
        If samples are requested from a matrix with a selection of frequencies.
    """
    scanner = receiver.scanner
    index = _selection(scanner, receiver.frequency_index)
    if time_domain and index is not None:
        raise InputError(
            f"the matrix holds {len(index)} of {len(scanner.frequencies)} frequencies: no samples over time can be "
            "made of them, spectra were expected"
        )

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
        frequency_index=index,
        background_corrected=background == 0,
        metadata=metadata_of(scanner, description),
    )
