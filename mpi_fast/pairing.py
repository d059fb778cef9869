"""Combine a measurement with its calibration: check that they fit, and read the rows that the calibration selected.

Reconstruction then takes three lines::

    with MeasurementFile("measurement.mdf") as file:
        for result in Reconstructor(calibration).stream(MeasuredRows(file, calibration)):
            ...
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpi_fast.agreement import Agreement, Side, compare
from mpi_fast.background import summarise
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError, MPIFastWarning
from mpi_fast.flags import is_strict, of_samples
from mpi_fast.mdf import Acquisition, Grid, MeasurementFile
from mpi_fast.misfit import RowNoise
from mpi_fast.period_fields import difference, groups

Rows = NDArray[np.complex64]


def check_pairing(measurement: MeasurementFile, calibration: Calibration, periods: slice = slice(None)) -> Agreement:
    """Check that a measurement was acquired like its calibration, in the periods in use.

    Numbers of channels and samples are always compared. Acquisition parameters are compared if the calibration has
    them, as it does if it was made from an MDF file.

    Returns
    -------
    Agreement
        Necessary conversions of the signals, and doubts.

    Raises
    ------
    MismatchError
        For the first difference that cannot be converted; the message names both values. See `agreement`.
    """
    acquisition = measurement.acquisition
    channels, frequencies = calibration.selection.shape
    same = acquisition.num_frequencies == frequencies and acquisition.num_samples == calibration.num_samples
    if acquisition.num_channels != channels or not same:
        raise MismatchError(
            f"{measurement.path}: {acquisition.num_channels} receive channels and {acquisition.num_samples} samples "
            f"per period, but the calibration has {channels} and {calibration.num_samples}"
        )
    used = range(acquisition.periods_per_frame)[periods]
    doubts = _doubts_of_periods(acquisition, used)
    if calibration.acquisition is None or not used:  # an empty selection of periods is refused when frames are selected
        return Agreement(None, (), doubts)
    found = Side(acquisition, measurement.transfer_function_corrected)
    expected = Side(calibration.acquisition, calibration.transfer_function_corrected)
    try:
        agreement = compare(found, expected, used)
    except MismatchError as error:
        raise MismatchError(f"{measurement.path}: {error}") from error
    if agreement.factor is not None:
        unknown = calibration.selection & ~(np.isfinite(agreement.factor) & (agreement.factor != 0))
        if unknown.any():
            channel, frequency = (int(index[0]) for index in np.nonzero(unknown))
            raise MismatchError(
                f"{measurement.path}: {agreement.done[-1]}, but unknown in {int(unknown.sum())} selected rows, such as "
                f"channel {channel} at {calibration.frequencies[frequency] / 1e3:.6g} kHz"
            )
    return replace(agreement, doubts=doubts + agreement.doubts)


def _doubts_of_periods(acquisition: Acquisition, used: range) -> tuple[str, ...]:
    """A doubt if the periods in use have different fields, which a measurement states without any calibration."""
    group = groups(acquisition)[list(used)]
    others = np.flatnonzero(group != group[:1])
    if not others.size:
        return ()
    found = difference(acquisition, used[0], used[int(others[0])])
    return (f"{found}: images of different places or fields; --periods selects those that share one",)


class MeasuredRows:
    """The rows of a measurement that its calibration selected, background-corrected, read when they are needed.

    Iterating reads the file from the start, some frames at a time, each a complex64 array (frames, M) as
    `Reconstructor` and `Calibration.reduce` take them.

    Parameters
    ----------
    measurement : MeasurementFile
        Measurement, which must stay open during the iteration.
    calibration : Calibration
        Calibration of the same scanner in the same state.
    start, stop : int
        The range of frames, counted after the selection by `periods`.
    periods : slice
        Periods to use of each stored frame, such as those of one patch.
    average : int or "all"
        Number of consecutive frames averaged into one.
    background : bool
        Subtract the mean background frame, if the file has any and is not yet corrected.
    chunk : int
        Number of frames in each array except the last.
    on_bad_frame : str
        ``mark``: frames with NaN or Inf are yielded unchanged, and `Reconstructor` flags them; ``stop``: they are an
        error.

    Attributes
    ----------
    num_frames : int
        Number of frames that the iteration yields.
    left_over : int
        Number of frames at the end that are too few for an average; they are not yielded.
    periods : range
        The periods of each stored frame that are in use.
    begin : int
        Number of frames to skip, 0 unless set. With a multiple of ``chunk`` the remaining arrays are the same.
    background_subtracted : bool
    noise : RowNoise
        Noise of these frames, estimated from the background frames.
    agreement : Agreement
        Conversions and doubts.
    flags : (frames,) uint8
        Clipped samples and silent channels in the array that was yielded last, see `flags.Flag`.
    numbers : (frames,) int64
        Number of each frame, or of the first averaged frame, in the array that was yielded last.
    times : (frames,) float64
        Start time of each frame, or of the first averaged frame, in the array that was yielded last. In s after the
        start of the file's first frame; background frames in between are not counted.
    averaged : int
        Frames averaged into one.

    Warns
    -----
    MPIFastWarning
        For doubts about the pair, and for outliers among the background frames.

    Raises
    ------
    MismatchError
        If measurement and calibration do not fit, see `check_pairing`, if selected frequencies are missing, or if
        averaged periods have different fields.
    InputError
        If no frame is selected, if all background frames contain NaN or Inf, or, with ``stop``, if a frame does.
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
        on_bad_frame: str = "mark",
    ) -> None:
        self.agreement = check_pairing(measurement, calibration, periods)
        for doubt in self.agreement.doubts:
            warnings.warn(f"{measurement.path}: {doubt}", MPIFastWarning, stacklevel=2)
        self._path, self._strict = measurement.path, is_strict(on_bad_frame)
        self._where = _stored_rows(measurement, calibration)
        self._used: NDArray[np.bool_] = np.asarray(calibration.selection.any(axis=1))
        factor = self.agreement.factor
        self._factor = np.complex64(1) if factor is None else factor[calibration.selection].astype(np.complex64)
        self._seen: list[NDArray[np.uint8]] = []
        read = partial(measurement.frames, stop=stop, periods=periods, chunk=chunk, inspect=self._flag_samples)
        read(start, average=average)  # refuses an empty selection already here
        stored, available = measurement.acquisition.periods_per_frame, range(measurement.acquisition.periods_per_frame)
        items = range(measurement.num_frames // stored * len(available[periods]))[start:stop]
        frames, self._first = len(items), items.start
        self.averaged = frames if average == "all" else average
        self._read = partial(read, average=self.averaged)
        self.num_frames, self.left_over = divmod(frames, self.averaged)
        self.periods, self.begin = available[periods], 0
        self._check_averages(measurement.acquisition)
        period = measurement.acquisition.cycle * measurement.acquisition.num_averages
        self._began = period * np.asarray(self.periods), period * stored
        self.flags: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self.times: NDArray[np.float64] = np.empty(0)
        empty = summarise(
            (spectra[:, *self._where] * self._factor for spectra in measurement.background_frames(periods=periods)),
            str(self._path),
            self._where[0],
        )
        self.background_subtracted = background and not measurement.background_corrected and empty.frames > 0
        self._background = empty.mean.astype(np.complex64) if self.background_subtracted else np.complex64(0)
        own = RowNoise.of_background(calibration, empty.energy, empty.frames) if empty.frames else None
        self.noise = RowNoise.unknown(calibration.num_rows) if own is None else own
        if self.noise.variance is not None:  # averages have less noise; the subtracted mean adds some
            share = 1 / self.averaged + (1 / empty.frames if self.background_subtracted else 0.0)
            self.noise = replace(self.noise, variance=self.noise.variance * share)

    def __iter__(self) -> Iterator[Rows]:
        done = self.begin
        self._seen = []
        if done == self.num_frames:
            return
        for spectra in self._read(self._first + self.averaged * done):
            with np.errstate(invalid="ignore", over="ignore"):
                rows = (spectra[:, *self._where] * self._factor - self._background).astype(np.complex64, copy=False)
            broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if broken.size and self._strict:
                raise InputError(f"{self._path}: NaN or Inf in frame {done + broken[0]} of those selected")
            self.flags = self._flags_of(len(rows))
            self.numbers = self._first + self.averaged * np.arange(done, done + len(rows))
            frame, period = np.divmod(self.numbers, len(self._began[0]))
            self.times = frame * self._began[1] + self._began[0][period]
            yield rows
            done += len(rows)

    def _check_averages(self, acquisition: Acquisition) -> None:
        """Refuse a mean of periods that have different fields."""
        numbers = self._first + np.arange(self.num_frames * self.averaged).reshape(self.num_frames, -1)
        periods = np.asarray(self.periods)[numbers % len(self.periods)]
        group = groups(acquisition)[periods]
        mixed = np.argwhere(group != group[:, :1])
        if len(mixed):
            found = difference(acquisition, *(int(periods[mixed[0][0], column]) for column in (0, mixed[0][1])))
            raise MismatchError(
                f"{self._path}: {found}: their mean would be an image of no place: select periods that share one, "
                "with --periods, or average none"
            )

    def _flag_samples(self, samples: NDArray[Any]) -> None:
        """Flag frames by their samples as stored."""
        self._seen.append(of_samples(samples, self._used))

    def _flags_of(self, count: int) -> NDArray[np.uint8]:
        """Flags of the next frames; those of averaged frames are combined."""
        if not self._seen:
            return np.zeros(count, np.uint8)
        seen = np.concatenate(self._seen)
        self._seen = [seen[count * self.averaged :]]
        return np.asarray(np.bitwise_or.reduce(seen[: count * self.averaged].reshape(count, -1), axis=1))


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
    """Position of the calibration's plane or volume in space, as far as it is known."""
    facts = calibration.facts
    regular = Grid.regular(calibration.grid, calibration.field_of_view)
    if "normal" not in facts:
        return replace(regular, extent=(*regular.extent[:2], 0.0)) if regular.normal else regular
    size = list(calibration.grid[::-1])  # ascending axes: in a plane, the columns' axis comes before the rows'
    if facts["normal"]:
        size.insert("xyz".index(facts["normal"]), 1)
    extent, center = tuple(facts["extent"]), tuple(facts["center"])
    return Grid(facts["normal"], (size[0], size[1], size[2]), extent, center, regular.voxels)
