"""Common parts of system matrices and measurements: acquisition, frames, layout and spectra."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.array_types import ComplexArray, IntArray
from mpi_fast.mdf.datasets import as_complex, is_complex
from mpi_fast.mdf.facts import read_acquisition
from mpi_fast.mdf.file import MDFFile
from mpi_fast.mdf.hdf5 import Stored
from mpi_fast.mdf.scale import read_scale

# Bytes of one read from disk, after conversion: large enough to stream, small beside any result.
_BLOCK_BYTES = 8 << 20
_MOST_SAMPLES = 1 << 24  # per period; 3D scanners have 53 856

# Larger than any received signal in any unit; its square still fits into single precision.
LARGEST = 1e15

_DATA, _RECEIVER = "/measurement/data", "/acquisition/receiver"


class SignalFile(MDFFile, ABC):
    """An MDF file with signals: acquisition, frames and lazily read spectra.

    Attributes
    ----------
    acquisition : Acquisition
    frequency_index : int64 array (K',)
        0-based index into `acquisition.frequencies` of each frequency in the file; ascending for any order of storage.
    background_corrected, transfer_function_corrected : bool
    scale : Scale
        Conversion of stored numbers to physical ones.
    """

    acquisition: Acquisition
    frequency_index: IntArray
    background_corrected: bool
    transfer_function_corrected: bool

    def _check(self) -> None:
        super()._check()
        data = self.datasets.find(_DATA)
        if data is None:
            self.datasets.fail(_DATA, "is missing: the file holds no signals")
        self._data: Stored = data
        self._check_kind()
        if self.datasets.flag("/measurement/isSparsityTransformed"):
            self.datasets.fail(
                "/measurement/isSparsityTransformed",
                "is set: compressed system matrices are not supported; store it uncompressed",
            )
        self.background_corrected = self.datasets.flag("/measurement/isBackgroundCorrected")
        self.transfer_function_corrected = self.datasets.flag("/measurement/isTransferFunctionCorrected")
        self._find_layout()
        self._find_frames()
        self._check_written()

    @abstractmethod
    def _check_kind(self) -> None:
        """Refuse a file of the other kind before details of it are read."""

    @abstractmethod
    def _called(self, stored: int) -> str:
        """Return a name of a stored frame for messages."""

    def _find_layout(self) -> None:
        """Find the meaning of each axis of /measurement/data, and check that all sizes fit."""
        channels = self.datasets.count(f"{_RECEIVER}/numChannels")
        samples = self.datasets.count(f"{_RECEIVER}/numSamplingPoints")
        if samples > _MOST_SAMPLES:
            name = f"{_RECEIVER}/numSamplingPoints"
            self.datasets.fail(name, f"is {samples}; at most {_MOST_SAMPLES} per period were expected")
        self._fourier = self.datasets.flag("/measurement/isFourierTransformed")
        stored = self._stored_frequencies(samples // 2 + 1)
        points = stored.size if self._fourier else samples
        self._fast, periods, self._num_frames = self._axes(channels, points)
        # Frequency k in ascending order is stored at position _order[k].
        self._order: IntArray = np.argsort(stored)
        self._sorted, self._at_zero = bool((np.diff(stored) > 0).all()), stored == 0
        self.frequency_index = stored[self._order]
        self._check_type()
        self.scale = read_scale(
            self.datasets,
            channels,
            fourier=self._fourier,
            raw_integers=(self._data.dtype[0] if self._data.dtype.names else self._data.dtype).kind in "iu",
            processed=self._is_processed(),
            background_corrected=self.background_corrected,
            transfer_function_corrected=self.transfer_function_corrected,
        )
        self.acquisition = read_acquisition(self.datasets, periods, channels, samples, stored)

    def _is_processed(self) -> bool | None:
        """Whether spectra are processed rather than raw, independent of a conversion factor; None if unknown."""
        return False

    def _stored_frequencies(self, limit: int) -> IntArray:
        flag = "/measurement/isFrequencySelection"
        index = self.datasets.indices(flag, "/measurement/frequencySelection", limit)
        if index is None:
            return np.arange(limit, dtype=np.int64)
        if not self._fourier:
            self.datasets.fail(flag, "is set, but the data are in the time domain (isFourierTransformed is 0)")
        return index

    def _axes(self, channels: int, points: int) -> tuple[bool, int, int]:
        """Return whether frames are the last axis, the number of periods J, and of frames N."""
        shape = self._data.shape[-4:]
        if len(shape) != 4 or math.prod(self._data.shape[:-4]) != 1:
            self._fail_data(f"has shape {self._data.shape}; four axes were expected")
        inner = (channels, points)
        flag = self.datasets.first("/measurement/isFastFrameAxis", "/measurement/isTransposed")
        # Early files lack the flag; only then the shape decides.
        fast = shape[2:] != inner and shape[1:3] == inner if flag is None else self.datasets.flag(flag.name)
        found, layout = (shape[1:3], "J x C x {0} x N") if fast else (shape[2:], "N x J x C x {0}")
        periods, frames = (shape[0], shape[3]) if fast else (shape[1], shape[0])
        if found != inner:
            letter = "K" if self._fourier else "V"
            self._fail_data(
                f"has shape {shape}; {layout.format(letter)} with C = {channels} channels and {letter} = "
                f"{points} was expected",
            )
        if not frames or not periods:
            self._fail_data(f"has shape {shape}: it holds no frames; at least one was expected")
        names = "/acquisition/numPeriodsPerFrame", "/acquisition/numPeriods"
        stated = self.datasets.count(*names, default=periods)
        if stated != periods:
            self._fail_data(f"has {periods} periods per frame, but {names[0]} is {stated}")
        return fast, periods, frames

    def _check_type(self) -> None:
        dtype = self._data.dtype
        complex_ = is_complex(dtype)
        parts = [dtype[0], dtype[1]] if complex_ and dtype.names else [dtype]
        if complex_ != self._fourier or any(part.kind not in "iufc" for part in parts):
            expected = "complex numbers {r, i}" if self._fourier else "real numbers"
            self._fail_data(
                f"has type {dtype}; {expected} were expected, as isFourierTransformed is {self._fourier:d}",
            )
        size = parts[0].itemsize // 2 if dtype.kind == "c" else parts[0].itemsize
        self._dtype = np.dtype(np.complex64 if size <= 4 else np.complex128)

    def _find_frames(self) -> None:
        """Read which stored frames are background, and when each was acquired."""
        count, name = self._num_frames, "/measurement/isBackgroundFrame"
        known = self.datasets.find(name) is not None
        background = self.datasets.numbers(name).reshape(-1) if known else np.zeros(count)
        if background.size != count:
            self.datasets.fail(name, f"has {background.size} entries; one for each of the {count} frames was expected")
        odd = np.flatnonzero((background != 0) & (background != 1))
        if odd.size:
            self.datasets.fail(name, f"is {background[odd[0]]:g} for frame {odd[0]}; 0 or 1 was expected")
        name = "/measurement/framePermutation"
        acquired = self.datasets.indices("/measurement/isFramePermutation", name, count)
        if acquired is not None and acquired.size != count:
            self.datasets.fail(name, f"has {acquired.size} entries; one for each of the {count} frames was expected")
        # The stored frame i was acquired as frame number _acquired[i].
        self._permuted = acquired is not None
        self._acquired = np.arange(count) if acquired is None else acquired
        self._foreground, self._background = np.flatnonzero(background == 0), np.flatnonzero(background)

    def _check_written(self) -> None:
        if self._data.hole is not None:
            index, problem = self._data.hole
            stored = index[-1] if self._fast else index[-4]
            self._fail_data(f"{problem}; the first is in {self._called(stored)}")

    def _fail_data(self, problem: str) -> NoReturn:
        self.datasets.fail(_DATA, problem)

    def _by_time(self, stored: IntArray) -> IntArray:
        return stored[np.argsort(self._acquired[stored])]

    def _spectra(
        self,
        frames: slice,
        periods: slice,
        channels: slice = slice(None),
        points: slice = slice(None),
        inspect: Callable[[NDArray[Any]], None] | None = None,
    ) -> ComplexArray:
        """Read one block from disk: complex array (frames, periods, channels, frequencies), as stored.

        `inspect` is called with samples as stored, (frames * periods, channels, samples).
        """
        leading = (0,) * (len(self._data.shape) - 4)
        # The transform needs all samples, so time-domain data are cut to `points` only afterwards.
        stored = points if self._fourier else slice(None)
        if self._fast:
            raw = np.moveaxis(self._data.read((*leading, periods, channels, stored, frames)), -1, 0)
        else:
            raw = self._data.read((*leading, frames, periods, channels, stored))
        factor = None if self.scale.factor is None else self.scale.factor[channels].T[..., None]
        if self._fourier:
            spectra = as_complex(raw)
            if factor is not None:
                # The spectrum of a constant offset is V times it, at frequency zero.
                constant = self._at_zero[points] * self.acquisition.num_samples
                spectra = factor[0] * spectra + factor[1] * constant
        else:
            if inspect is not None:
                inspect(raw.reshape(-1, *raw.shape[2:]))
            volts = raw.astype(np.float64)
            if factor is not None:
                volts = factor[0] * volts + factor[1]
            spectra = np.fft.rfft(volts, axis=-1)[..., points]
        with np.errstate(over="ignore"):  # numbers that are too large are found by the caller
            return spectra.astype(self._dtype, copy=False)

    def _frames_per_block(self) -> int:
        """Return how many frames of one period fit into a block."""
        return items_per_block(self.acquisition.num_channels * self.acquisition.num_samples)


def items_per_block(size: int) -> int:
    """Return how many items of `size` complex numbers fit into a block, at least one."""
    return max(1, _BLOCK_BYTES // (16 * size))


def find_unusable(spectra: ComplexArray) -> NDArray[np.bool_] | None:
    """Find unusable numbers: NaN, Inf, and beyond `LARGEST`; None if there are none."""
    extremes = [end for part in (spectra.real, spectra.imag) for end in (part.min(initial=0), part.max(initial=0))]
    if max(map(abs, extremes)) <= LARGEST and not np.isnan(extremes).any():
        return None
    return ~((np.abs(spectra.real) <= LARGEST) & (np.abs(spectra.imag) <= LARGEST))


def run_length(index: IntArray) -> int:
    """Return the length of the first run of entries that increase by one."""
    breaks = np.flatnonzero(np.diff(index) != 1)
    return int(breaks[0]) + 1 if breaks.size else index.size
