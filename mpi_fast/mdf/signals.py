"""What system matrices and measurements share: acquisition, frames, layout and spectra."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.file import MDFFile
from mpi_fast.mdf.specification import TYPES
from mpi_fast.mdf.types import ComplexArray, FloatArray, IntArray, TextArray

# Bytes of one read from disk, after conversion: large enough to stream, small beside any result.
_BLOCK_BYTES = 8 << 20

# Names of the two parts of a complex number in the wild; h5py turns only the first into complex by itself.
_COMPLEX_FIELDS = (("r", "i"), ("real", "imag"), ("re", "im"))

# The groups that say what was measured where, by whom and why.
_DESCRIPTIVE = ("study", "experiment", "tracer", "scanner")


class SignalFile(MDFFile, ABC):
    """An MDF file with signals: acquisition, frames and lazily read spectra.

    Attributes
    ----------
    acquisition : Acquisition
    frequency_index : int64 array (K',)
        0-based index into `acquisition.frequencies` of each stored frequency.
    background_corrected, transfer_function_corrected : bool
    """

    acquisition: Acquisition
    frequency_index: IntArray
    background_corrected: bool
    transfer_function_corrected: bool

    def _check(self) -> None:
        super()._check()
        if self._find("/measurement/data") is None:
            self._fail("/measurement/data", "is missing: the file holds no signals")
        self._check_kind()
        if self._flag("/measurement/isSparsityTransformed"):
            self._fail(
                "/measurement/isSparsityTransformed",
                "is set: compressed system matrices are not supported; store it uncompressed",
            )
        self.background_corrected = self._flag("/measurement/isBackgroundCorrected")
        self.transfer_function_corrected = self._flag("/measurement/isTransferFunctionCorrected")
        self._find_layout()
        self._find_frames()

    def _read_acquisition(self, periods: int, channels: int) -> Acquisition:
        drive, receiver = "/acquisition/drivefield", "/acquisition/receiver"
        divider = self._divider(f"{drive}/divider")
        return Acquisition(
            base_frequency=self._positive(f"{drive}/baseFrequency"),
            divider=divider,
            strength=self._per_period(f"{drive}/strength", periods, divider.shape),
            phase=self._per_period(f"{drive}/phase", periods, divider.shape, default=0.0),
            gradient=self._gradient("/acquisition/gradient"),
            bandwidth=self._positive(f"{receiver}/bandwidth", f"{receiver}/bandwidthSampling"),
            num_samples=self._int(f"{receiver}/numSamplingPoints"),
            num_channels=channels,
            periods_per_frame=periods,
            cycle=self._float(f"{drive}/cycle", default=0.0),
            num_averages=self._int("/acquisition/numAverages", default=1),
            gradients=self._gradients("/acquisition/gradient", periods),
            offset_field=self._offset_field("/acquisition/offsetField", periods),
            waveform=self._waveform(f"{drive}/waveform", divider.shape),
            unit=self._stated(f"{receiver}/unit"),
            induction_factor=self._per_channel(f"{receiver}/inductionFactor", channels),
            transfer_function=self._transfer_function(receiver, channels),
            start_time=self._stated("/acquisition/startTime"),
            description=self._description(),
        )

    def _divider(self, name: str) -> IntArray:
        divider = self._integers(name)
        while divider.ndim > 2 and len(divider) == 1:
            divider = divider[0]
        if divider.ndim > 2 or divider.size == 0 or divider.min() < 0:
            self._fail(name, f"has shape {divider.shape}; D x F whole numbers from 0 were expected")
        # A bare list has one entry for each of the D drive channels.
        return divider if divider.ndim == 2 else divider.reshape(-1, 1)

    def _per_period(self, name: str, periods: int, shape: tuple[int, ...], default: float | None = None) -> FloatArray:
        if default is not None and self._find(name) is None:
            return np.full((1, *shape), default)
        values = self._numbers(name)
        if not values.size or values.size % math.prod(shape):
            expected = f"J x D x F = {periods} x {shape[0]} x {shape[1]}"
            self._fail(name, f"has shape {values.shape}; {expected} was expected")
        sets = values.reshape(-1, *shape)
        # A count of its own here, patches say, is no reason to refuse a file: nothing is computed from it.
        return sets if len(sets) == periods else sets[:1]

    def _gradient(self, name: str) -> FloatArray | None:
        """Read the first gradient matrix; older files store its diagonal, per period or not."""
        if self._find(name) is None:
            return None
        values = self._numbers(name)
        is_matrix = values.shape[-2:] == (3, 3) or values.shape == (9,)
        if not values.size or not (is_matrix or values.shape[-1:] == (3,)):
            self._fail(name, f"has shape {values.shape}; J x Y x 3 x 3 was expected")
        first = values.reshape(-1)[: 9 if is_matrix else 3]
        return first.reshape(3, 3) if is_matrix else np.diag(first)

    # What follows is compared with other files and copied, never computed with: an odd shape is no reason to refuse.

    def _gradients(self, name: str, periods: int) -> FloatArray | None:
        """Read the gradient matrix of every period and patch, (J, Y, 3, 3), from one to four axes."""
        if self._find(name) is None:
            return None
        values = self._numbers(name)
        is_matrix = values.shape[-2:] == (3, 3) or values.shape == (9,)
        matrices = values.reshape(-1, 3, 3) if is_matrix else np.apply_along_axis(np.diag, -1, values.reshape(-1, 3))
        return self._patches(matrices, periods)

    def _offset_field(self, name: str, periods: int) -> FloatArray | None:
        """Read the offset field of every period and patch, (J, Y, 3), from one to three axes."""
        values = self._numbers(name) if self._find(name) is not None else np.empty(0)
        return self._patches(values.reshape(-1, 3), periods) if values.size and values.shape[-1] == 3 else None

    @staticmethod
    def _patches(values: FloatArray, periods: int) -> FloatArray:
        """Turn (J * Y, ...) into (J, Y, ...), with J = 1 where the count is none of that many periods."""
        return values.reshape(periods if len(values) % periods == 0 else 1, -1, *values.shape[1:])

    def _waveform(self, name: str, shape: tuple[int, ...]) -> TextArray | None:
        if self._find(name) is None:
            return None
        texts = _as_texts(self._array(name))
        if texts.size == 1 or texts.size == math.prod(shape):
            return np.broadcast_to(texts.reshape(-1), math.prod(shape)).reshape(shape)
        return None

    def _per_channel(self, name: str, channels: int) -> FloatArray | None:
        values = self._numbers(name) if self._find(name) is not None else np.empty(0)
        return values.reshape(channels) if values.size == channels else None

    def _transfer_function(self, receiver: str, channels: int) -> ComplexArray | None:
        """Read the transfer function at all frequencies, (C, K), or only at the stored ones."""
        names = f"{receiver}/transferFunction", f"{receiver}/transferfunction"
        if self._find(*names) is None:
            return None
        values = self._array(*names)
        values = _as_complex(values) if values.dtype.names in _COMPLEX_FIELDS else values
        full = channels, self._int(f"{receiver}/numSamplingPoints") // 2 + 1
        if values.dtype.kind == "f" and values.shape == (*full, 2):
            values = values[..., 0] + 1j * values[..., 1]
        if values.dtype.kind not in "fc" or values.shape not in (full, (channels, self.frequency_index.size)):
            return None
        found = np.full(full, np.nan, np.complex128)
        found[:, slice(None) if values.shape == full else self.frequency_index] = values
        return found

    def _stated(self, name: str) -> str | None:
        return self._text(name) if self._find(name) is not None else None

    def _description(self) -> dict[str, Any]:
        """Read what the specification knows of study, experiment, tracer and scanner, whatever type it has."""
        stated = {}
        for name in TYPES:
            if name.split("/")[1] in _DESCRIPTIVE and self._find(name) is not None:
                values = self._array(name)
                stated[name] = (_as_texts(values) if values.dtype.kind in "OSU" else values).tolist()
        return stated

    @abstractmethod
    def _check_kind(self) -> None:
        """Refuse a file of the other kind before any detail of it is read."""

    def _find_layout(self) -> None:
        """Find out which axis of /measurement/data is which, and check that all sizes fit."""
        receiver = "/acquisition/receiver"
        channels, samples = self._int(f"{receiver}/numChannels"), self._int(f"{receiver}/numSamplingPoints")
        self._data = self._h5["/measurement/data"]
        self._fourier = self._flag("/measurement/isFourierTransformed")
        self.frequency_index = self._frequency_index(samples // 2 + 1)
        points = self.frequency_index.size if self._fourier else samples
        self._fast, periods, self._num_frames = self._axes(channels, points)
        self._check_type()
        self._conversion = self._conversion_factor(channels)
        self.acquisition = self._read_acquisition(periods, channels)

    def _frequency_index(self, limit: int) -> IntArray:
        flag = "/measurement/isFrequencySelection"
        index = self._indices(flag, "/measurement/frequencySelection", limit)
        if index is None:
            return np.arange(limit, dtype=np.int64)
        if not self._fourier:
            self._fail(flag, "is set, but the data are in the time domain (isFourierTransformed is 0)")
        return index

    def _axes(self, channels: int, points: int) -> tuple[bool, int, int]:
        """Return whether frames are the last axis, the number of periods J, and of frames N."""
        shape = self._data.shape[-4:]
        if len(shape) != 4 or math.prod(self._data.shape[:-4]) != 1 or 0 in shape:
            self._fail("/measurement/data", f"has shape {self._data.shape}; four axes were expected")
        inner = (channels, points)
        flag = self._find("/measurement/isFastFrameAxis", "/measurement/isTransposed")
        # Early files lack the flag; only then may the shape decide.
        fast = shape[2:] != inner and shape[1:3] == inner if flag is None else self._flag(flag.name)
        found, layout = (shape[1:3], "J x C x {0} x N") if fast else (shape[2:], "N x J x C x {0}")
        periods, frames = (shape[0], shape[3]) if fast else (shape[1], shape[0])
        if found != inner:
            letter = "K" if self._fourier else "V"
            self._fail(
                "/measurement/data",
                f"has shape {shape}; {layout.format(letter)} with C = {channels} channels and {letter} = "
                f"{points} was expected",
            )
        names = "/acquisition/numPeriodsPerFrame", "/acquisition/numPeriods"
        stated = self._int(*names, default=periods)
        if stated != periods:
            self._fail("/measurement/data", f"has {periods} periods per frame, but {names[0]} is {stated}")
        return fast, periods, frames

    def _check_type(self) -> None:
        dtype = self._data.dtype
        is_complex = dtype.kind == "c" or dtype.names in _COMPLEX_FIELDS
        if is_complex != self._fourier or not (is_complex or dtype.kind in "iuf"):
            expected = "complex numbers {r, i}" if self._fourier else "real numbers"
            self._fail(
                "/measurement/data",
                f"has type {dtype}; {expected} were expected, as isFourierTransformed is {self._fourier:d}",
            )
        part = dtype[0].itemsize if dtype.names else dtype.itemsize // 2 if is_complex else dtype.itemsize
        self._dtype = np.dtype(np.complex64 if part <= 4 else np.complex128)

    def _conversion_factor(self, channels: int) -> FloatArray | None:
        """Return (C, 2), scale and offset of raw samples; Fourier data are physical already."""
        name = "/acquisition/receiver/dataConversionFactor"
        if self._fourier or self._find(name) is None:
            return None
        factor = self._numbers(name)
        if factor.shape[-2:] != (channels, 2) or factor.size != 2 * channels:
            self._fail(name, f"has shape {factor.shape}; C x 2 = {channels} x 2 was expected")
        return factor.reshape(channels, 2)

    def _find_frames(self) -> None:
        """Read which stored frames are background, and when each was acquired."""
        count, name = self._num_frames, "/measurement/isBackgroundFrame"
        background = self._numbers(name).reshape(-1) if self._find(name) is not None else np.zeros(count)
        if background.size != count:
            self._fail(name, f"has {background.size} entries; one for each of the {count} frames was expected")
        name = "/measurement/framePermutation"
        acquired = self._indices("/measurement/isFramePermutation", name, count)
        if acquired is not None and acquired.size != count:
            self._fail(name, f"has {acquired.size} entries; one for each of the {count} frames was expected")
        # The stored frame i was acquired as number _acquired[i].
        self._permuted = acquired is not None
        self._acquired = np.arange(count) if acquired is None else acquired
        self._foreground, self._background = np.flatnonzero(background == 0), np.flatnonzero(background)

    def _by_time(self, stored: IntArray) -> IntArray:
        return stored[np.argsort(self._acquired[stored])]

    def _spectra(
        self, frames: slice, periods: slice, channels: slice = slice(None), points: slice = slice(None)
    ) -> ComplexArray:
        """Read one block from disk: complex array (frames, periods, channels, frequencies)."""
        leading = (0,) * (self._data.ndim - 4)
        # A transform needs all samples, so time-domain data are cut to `points` only after it.
        stored = points if self._fourier else slice(None)
        if self._fast:
            raw = np.moveaxis(self._select(self._data, (*leading, periods, channels, stored, frames)), -1, 0)
        else:
            raw = self._select(self._data, (*leading, frames, periods, channels, stored))
        if self._fourier:
            return _as_complex(raw).astype(self._dtype, copy=False)
        volts = raw.astype(np.float64)
        if self._conversion is not None:
            scale, offset = self._conversion[channels].T[..., None]
            volts = scale * volts + offset
        return np.fft.rfft(volts, axis=-1)[..., points].astype(self._dtype, copy=False)

    def _frames_per_block(self) -> int:
        """Return how many frames of one period fit into a block."""
        return items_per_block(self.acquisition.num_channels * self.acquisition.num_samples)


def items_per_block(size: int) -> int:
    """Return how many items of `size` complex numbers fit into a block, at least one."""
    return max(1, _BLOCK_BYTES // (16 * size))


def _as_complex(raw: NDArray[Any]) -> ComplexArray:
    """Turn compounds of real and imaginary part into complex numbers."""
    if raw.dtype.names is None:
        return raw
    real, imaginary = raw.dtype.names
    # Not real + 1j * imaginary: that would turn an infinite part into NaN.
    out = np.empty(raw.shape, np.complex64 if raw.dtype[0].itemsize <= 4 else np.complex128)
    out.real, out.imag = raw[real], raw[imaginary]
    return out


def _as_texts(values: NDArray[Any]) -> TextArray:
    """Decode byte strings as UTF-8, as far as they are."""
    texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in values.reshape(-1)]
    return np.asarray(texts, np.str_).reshape(values.shape)


def run_length(index: IntArray) -> int:
    """Return how many entries from the first on count up by one."""
    breaks = np.flatnonzero(np.diff(index) != 1)
    return int(breaks[0]) + 1 if breaks.size else index.size
