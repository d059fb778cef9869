"""A measurement and the calibration it is reconstructed with: do they fit, and which numbers go where.

With both at hand, reconstruction is three lines::

    with MeasurementFile("measurement.mdf") as file:
        for result in Reconstructor(calibration).stream(MeasuredRows(file, calibration)):
            ...
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration, acquisition_facts
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.mdf import Grid, MeasurementFile

Rows = NDArray[np.complex64]
STRENGTH_TOLERANCE = 0.01  # relative: drive amplitudes are controlled to a few per mille

# What must agree: the name in `Calibration.facts`, what people call it, unit and factor to it, relative tolerance.
_SHARED: tuple[tuple[str, str, str, float, float], ...] = (
    ("num_channels", "receive channels", "", 1.0, 0.0),
    ("num_samples", "samples per period", "", 1.0, 0.0),
    ("bandwidth", "receiver bandwidth", " MHz", 1e-6, 1e-6),
    ("divider", "drive-field dividers", "", 1.0, 0.0),
    ("strength", "drive-field strength", " mT", 1e3, STRENGTH_TOLERANCE),
    ("transfer_function_corrected", "transfer function corrected", "", 1.0, 0.0),
)


def check_pairing(measurement: MeasurementFile, calibration: Calibration) -> None:
    """Check that a measurement was acquired like its calibration.

    Channels and samples are always compared; bandwidth, drive field and correction of the transfer function where the
    calibration knows its own, as it does if it came from a file.

    Raises
    ------
    MismatchError
        Naming the first thing that differs, and both its values.
    """
    acquisition = measurement.acquisition
    found = acquisition_facts(acquisition)
    found["transfer_function_corrected"] = measurement.transfer_function_corrected
    channels, frequencies = calibration.selection.shape
    if (acquisition.num_channels, acquisition.num_frequencies) != (channels, frequencies):
        raise MismatchError(
            f"{measurement.path}: {acquisition.num_channels} receive channels and {acquisition.num_samples} samples "
            f"per period, but the calibration has {channels} and {2 * (frequencies - 1)}"
        )
    for name, called, unit, factor, tolerance in _SHARED:
        expected = calibration.facts.get(name)
        if expected is not None and not _agree(found[name], expected, tolerance):
            raise MismatchError(
                f"{measurement.path}: {called} {_text(found[name], factor)}{unit}, but the calibration has "
                f"{_text(expected, factor)}{unit}"
            )


def _agree(found: Any, expected: Any, tolerance: float) -> bool:
    a, b = np.atleast_1d(np.asarray(found, float)), np.atleast_1d(np.asarray(expected, float))
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=0.0)


def _text(value: Any, factor: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " x ".join(f"{factor * item:.6g}" for item in np.atleast_1d(np.asarray(value, float)))


class MeasuredRows:
    """The rows of a measurement that its calibration selected, background subtracted, read as they are needed.

    Iterating reads the file from the start, some frames at a time, each a complex64 array (frames, M) as
    `Reconstructor` and `Calibration.reduce` take them.

    Parameters
    ----------
    measurement : MeasurementFile
        Open for as long as this is iterated.
    calibration : Calibration
        Of the scanner, in the same state.
    start, stop : int
        The range of frames, counted over what `periods` leaves.
    periods : slice
        Periods to take of each stored frame: those of one patch, say.
    average : int or "all"
        Consecutive frames averaged into one.
    background : bool
        Subtract the mean background frame, if the file has any and is not corrected already.
    chunk : int
        Frames in each array but the last.

    Attributes
    ----------
    num_frames : int
        Frames that iterating yields.
    background_subtracted : bool

    Raises
    ------
    MismatchError
        Measurement and calibration do not fit, see `check_pairing`, or the measurement lacks selected frequencies.
    InputError
        Nothing is selected, or NaN or Inf are in the background or, while iterating, in the frames.
    """

    def __init__(
        self,
        measurement: MeasurementFile,
        calibration: Calibration,
        start: int = 0,
        stop: int | None = None,
        *,
        periods: slice = slice(None),
        average: int | Literal["all"] = 1,
        background: bool = True,
        chunk: int = 64,
    ) -> None:
        check_pairing(measurement, calibration)
        self._path = measurement.path
        self._where = _stored_rows(measurement, calibration)
        self._read = partial(measurement.frames, start, stop, periods=periods, average=average, chunk=chunk)
        self._read()  # refuses an empty selection now rather than later
        stored, available = measurement.acquisition.periods_per_frame, range(measurement.acquisition.periods_per_frame)
        frames = len(range(measurement.num_frames // stored * len(available[periods]))[start:stop])
        self.num_frames = 1 if average == "all" else frames // average
        mean = measurement.background_mean(periods=periods) if background else None
        self.background_subtracted = mean is not None
        self._background = np.complex64(0) if mean is None else mean[self._where]
        if not np.isfinite(self._background).all():
            raise InputError(f"{self._path}: NaN or Inf in the background frames")

    def __iter__(self) -> Iterator[Rows]:
        done = 0
        for spectra in self._read():
            rows = spectra[:, *self._where] - self._background
            broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if broken.size:
                raise InputError(f"{self._path}: NaN or Inf in frame {done + broken[0]} of those selected")
            yield rows.astype(np.complex64, copy=False)
            done += len(rows)


def _stored_rows(measurement: MeasurementFile, calibration: Calibration) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Channel and position among the stored frequencies of every selected row."""
    channel, frequency = np.nonzero(calibration.selection)
    position = np.full(calibration.selection.shape[1], -1)
    position[measurement.frequency_index] = np.arange(len(measurement.frequency_index))
    missing = np.unique(frequency[position[frequency] < 0])
    if missing.size:
        raise MismatchError(
            f"{measurement.path}: holds a selection of frequencies, without {missing.size} of those the calibration "
            f"selected, such as {calibration.frequencies[missing[0]] / 1e3:.6g} kHz"
        )
    return channel, position[frequency]


def image_grid(calibration: Calibration) -> Grid:
    """The calibration's plane in space, as far as the calibration knows it."""
    facts, (rows, columns) = calibration.facts, calibration.grid
    flat = Grid.flat(calibration.grid, calibration.field_of_view)
    if "normal" not in facts:
        return flat
    size = [columns, rows]  # ascending axes: the columns' axis comes before the rows'
    size.insert("xyz".index(facts["normal"]), 1)
    extent, center = tuple(facts["extent"]), tuple(facts["center"])
    return Grid(facts["normal"], (size[0], size[1], size[2]), extent, center, flat.voxels)
