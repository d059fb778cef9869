"""Measurements of any length: frames of spectra or voltages."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, MPIFastWarning
from mpi_fast.hdf5_output import OutputFile
from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.array_types import ComplexArray, IntArray
from mpi_fast.mdf.signals import SignalFile, find_unusable, run_length
from mpi_fast.mdf.write import (
    GrowingDataset,
    Metadata,
    count_points,
    put_common,
    put_flags,
    require_shape,
)

_DATA = "/measurement/data"


class MeasurementFile(SignalFile):
    """A measurement: every period of every foreground frame is one frame to reconstruct.

    With J periods per frame, the frames are numbered continuously: period j of the f-th foreground frame, in the order
    of acquisition, is number `f * J + j`. If the periods belong to several patches, `periods` selects those of one
    patch: the central one of OpenMPI's measurements/*/2.mdf is `slice(9000, 10000)`.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileFormatError
        If the file is damaged, is not a measurement, or its parts do not fit each other.
    """

    def _check_kind(self) -> None:
        # A group with parameters of a planned calibration does not make the file a system matrix.
        of_matrix = {"size", "positions", "offsetFields"}.intersection(self.datasets.members("/calibration"))
        if of_matrix:
            name = f"/calibration/{min(of_matrix)}"
            self.datasets.fail(name, "is there: this is a system matrix; a measurement was expected")

    def _called(self, stored: int) -> str:
        if stored in self._background:
            return f"background frame {int(np.searchsorted(self._background, stored))}"
        return f"frame {int(np.searchsorted(self._foreground, stored))}"

    def _check(self) -> None:
        super()._check()
        if not self._foreground.size:
            self.datasets.fail("/measurement/isBackgroundFrame", "marks every frame as background; nothing is left")
        self._foreground = self._by_time(self._foreground)
        self._background = self._by_time(self._background)

    @property
    def num_frames(self) -> int:
        """Foreground frames times periods per frame."""
        return self._foreground.size * self.acquisition.periods_per_frame

    @property
    def num_background_frames(self) -> int:
        """Background frames times periods per frame."""
        return self._background.size * self.acquisition.periods_per_frame

    def frames(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        periods: slice = slice(None),
        average: int | Literal["all"] = 1,
        chunk: int = 64,
        inspect: Callable[[NDArray[Any]], None] | None = None,
    ) -> Iterator[ComplexArray]:
        """Read the foreground, a chunk at a time, in bounded memory.

        Parameters
        ----------
        start, stop : int
            Range of frames to read, counted after the selection by `periods`.
        periods : slice
            0-based periods to use of each stored frame, with a positive step.
        average : int or "all"
            Number of consecutive frames averaged into one. A smaller last group is dropped, because its noise would
            differ.
        chunk : int
            Number of frames, after averaging, in each array except the last.
        inspect : callable, optional
            Called with the samples as stored, (frames, C, V), in order and before they are yielded; not called for
            spectra.

        Yields
        ------
        complex64 array (chunk, C, K')

        Raises
        ------
        InputError
            If the selection is empty, shorter than `average`, or reaches beyond the last frame.
        """
        wanted = self._periods(periods)
        count = self._foreground.size * len(wanted)
        if start < count < (stop or 0):
            raise InputError(
                f"{self.path}: frames {_colon(slice(start, stop))} reach beyond the end: there are {count} frames, "
                f"{self._foreground.size} in the foreground with {len(wanted)} selected periods each"
            )
        items = range(count)[start:stop]
        group = len(items) if average == "all" else average
        if not items or group < 1 or chunk < 1 or len(items) < group:
            raise InputError(
                f"{self.path}: frames {_colon(slice(start, stop))}, average={average}, chunk={chunk} selects nothing: "
                f"there are {self._foreground.size} foreground frames of {len(wanted)} selected periods"
            )
        return _averaged(self._blocks(self._foreground, wanted, items, inspect), group, chunk)

    def background_frames(self, *, periods: slice = slice(None), chunk: int = 64) -> Iterator[ComplexArray]:
        """Read the background frames as `frames` does the foreground; yield nothing if there are none."""
        wanted = self._periods(periods)
        items = range(self._background.size * len(wanted))
        return _averaged(self._blocks(self._background, wanted, items), 1, chunk)

    def background_mean(self, *, periods: slice = slice(None)) -> NDArray[np.complex64] | None:
        """Average the background.

        Parameters
        ----------
        periods : slice
            As in `frames`; use the same, because each patch has its own background.

        Returns
        -------
        complex64 array (C, K'), or None
            None if there are no background frames or the data are background-corrected already.
        """
        if self.background_corrected or not self._background.size:
            return None
        wanted = self._periods(periods)
        items = range(self._background.size * len(wanted))
        (mean,) = _averaged(self._blocks(self._background, wanted, items), len(items), 1)
        return mean.squeeze(0)

    def _periods(self, periods: slice) -> range:
        count = self.acquisition.periods_per_frame
        wanted = range(count)[periods]
        if not wanted or wanted.step < 1 or max(periods.start or 0, periods.stop or 0) > count:
            raise InputError(
                f"{self.path}: periods {_colon(periods)} select no ascending range of the {count} periods in each frame"
            )
        return wanted

    def _blocks(
        self,
        stored: IntArray,
        periods: range,
        items: range,
        inspect: Callable[[NDArray[Any]], None] | None = None,
    ) -> Iterator[ComplexArray]:
        """Yield the frames `items`, counted over `stored` x `periods`, in blocks suited to the disk."""
        limit, position = self._frames_per_block(), items.start
        while position < items.stop:
            frame, first = divmod(position, len(periods))
            whole = min(limit, items.stop - position) // len(periods)
            if first == 0 and whole:
                count, part = run_length(stored[frame : frame + whole]), periods
            else:
                count, part = 1, periods[first : first + min(limit, items.stop - position)]
            begin = int(stored[frame])
            block = self._spectra(slice(begin, begin + count), slice(part.start, part.stop, part.step), inspect=inspect)
            block = block.reshape(-1, *block.shape[2:])
            kind = "frame" if stored is self._foreground else "background frame"
            yield self._checked(block if self._sorted else block[..., self._order], kind, position)
            position += count * len(part)

    def _checked(self, block: ComplexArray, kind: str, first: int) -> ComplexArray:
        """Warn of empty frames, and replace numbers that would overflow by NaN; block[0] has the number `first`."""
        empty = np.flatnonzero(~block.any(axis=(1, 2)))
        if empty.size:
            self.datasets.warn(_DATA, f"is exactly zero in {kind} {first + empty[0]}, maybe in others")
        bad = find_unusable(block)
        if bad is None:
            return block
        bad &= np.isfinite(block)
        if bad.any():
            frame, channel, _ = np.argwhere(bad)[0]
            size = np.abs(block[frame, channel][bad[frame, channel]]).max()
            problem = f"reaches {size:.3g} in {kind} {first + frame}, channel {channel}"
            self.datasets.warn(_DATA, f"{problem}, too large to compute with: it is taken as NaN")
            block = np.where(bad, np.nan, block)
        return block


def _colon(part: slice) -> str:
    """A slice in colon notation."""
    start, stop = part.start or 0, "" if part.stop is None else part.stop
    return f"{start}:{stop}" + ("" if part.step in (None, 1) else f":{part.step}")


def _averaged(blocks: Iterator[ComplexArray], group: int, chunk: int) -> Iterator[NDArray[np.complex64]]:
    """Average `group` consecutive frames into one and yield them `chunk` at a time.

    Frames with NaN or Inf are left out of a mean of several, with a warning.
    """
    means: list[NDArray[np.complex64]] = []
    total: Any = 0.0
    count = used = 0
    for block in blocks:
        start = 0
        while start < len(block):
            part = block[start : start + group - count]
            # Sums of thousands of frames need more than the 24 bits of single precision.
            whole = np.isfinite(part).all(axis=(1, 2)) if group > 1 else np.ones(len(part), bool)
            for frame in part[whole]:  # one by one, so that the sum does not depend on the block boundaries
                total = total + frame.astype(np.complex128)
            start, count, used = start + len(part), count + len(part), used + int(whole.sum())
            if count == group:
                if used < group:
                    text = f"NaN or Inf in {group - used} of {group} frames that are averaged: left out"
                    warnings.warn(text, MPIFastWarning, stacklevel=2)
                mean = total / used if used else np.full(block.shape[1:], np.nan)
                with np.errstate(over="ignore", invalid="ignore"):
                    means.append(mean.astype(np.complex64))
                total, count, used = 0.0, 0, 0
            if len(means) == chunk:
                yield np.stack(means)
                means = []
    if means:
        yield np.stack(means)


def write_measurement(
    path: str | Path,
    frames: NDArray[Any] | Iterable[NDArray[Any]],
    *,
    acquisition: Acquisition,
    background: NDArray[Any] | Iterable[NDArray[Any]] | None = None,
    frequency_index: IntArray | None = None,
    background_corrected: bool = False,
    metadata: Metadata | None = None,
) -> None:
    """Write a measurement, frames first, then background frames.

    Parameters
    ----------
    path : str or Path
    frames : array (n, J, C, V) or (n, J, C, K'), or an iterable of such arrays
        Real samples in the time domain, or complex spectra; the axis J may be left out if it is 1. An
        iterable is consumed array by array.
    acquisition : Acquisition
    background : as `frames`, optional
    frequency_index : int64 array (K',), optional
        The 0-based frequencies of the spectra; all K by default.
    background_corrected : bool
    metadata : Metadata, optional

    Raises
    ------
    InputError
        If there are no frames, their shapes or types do not fit, or the file cannot be created there.
    """
    with atomic_path(path) as temporary, OutputFile(temporary) as h5:
        data = GrowingDataset(h5, "/measurement/data")
        for chunk in _chunks(frames):
            data.append(_signals(chunk, acquisition, frequency_index))
        foreground = data.length
        if not foreground:
            raise InputError("frames: at least one frame was expected")
        for chunk in _chunks(background):
            data.append(_signals(chunk, acquisition, frequency_index))
        put_common(h5, acquisition, metadata or Metadata(), data.length)
        is_background = np.arange(data.length) >= foreground
        put_flags(h5, is_background, frequency_index, background_corrected)


def _chunks(frames: NDArray[Any] | Iterable[NDArray[Any]] | None) -> Iterable[NDArray[Any]]:
    if frames is None:
        return ()
    return (frames,) if isinstance(frames, np.ndarray) else frames


def _signals(chunk: NDArray[Any], acquisition: Acquisition, frequency_index: IntArray | None) -> NDArray[Any]:
    """Check one chunk of frames and bring it to (n, J, C, V or K')."""
    chunk = np.asarray(chunk)
    if chunk.dtype.kind not in "iufc" or (frequency_index is not None and chunk.dtype.kind != "c"):
        raise InputError(f"frames: real samples, or complex spectra if selected, were expected, not {chunk.dtype}")
    is_complex = chunk.dtype.kind == "c"
    points = count_points(acquisition, frequency_index) if is_complex else acquisition.num_samples
    chunk = chunk[:, np.newaxis] if chunk.ndim == 3 else chunk
    require_shape("frames", chunk, (len(chunk), acquisition.periods_per_frame, acquisition.num_channels, points))
    return chunk
