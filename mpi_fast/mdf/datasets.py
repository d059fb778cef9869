"""Datasets as typed values: numbers, flags, texts, lists. Each is checked, and errors name the dataset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf.array_types import ComplexArray, FloatArray, IntArray, TextArray, Triple
from mpi_fast.mdf.hdf5 import HDF5File, Stored

# Usual names of the two parts of a complex number; h5py converts only the first pair by itself.
COMPLEX_FIELDS = (("r", "i"), ("real", "imag"), ("re", "im"))


class Datasets(HDF5File):
    """An HDF5 file with typed reading. Of several names, the first existing one is read; errors show the first name."""

    def first(self, *names: str) -> Stored | None:
        """Return the first of the datasets `names` that exists."""
        found = (self.find(name) for name in names)
        return next((item for item in found if item is not None), None)

    def array(self, *names: str, default: Any = None) -> NDArray[Any]:
        """Read a whole, small dataset; it must exist unless there is a `default`."""
        stored = self.first(*names)
        if stored is None and default is None:
            self.fail(names[0], "is missing; it is mandatory here")
        if stored is None:
            return np.asarray(default)
        if stored.hole is not None:
            self.warn(stored.name, f"{stored.hole[1]}; it is read as zeros")
        return stored.read()

    def number(self, *names: str, default: float | None = None) -> float:
        """Read one real number."""
        value = self._scalar(*names, default=default)
        if np.asarray(value).dtype.kind not in "biuf":
            self.fail(names[0], f"is {shown(value)}; a number was expected")
        return float(value)

    def count(self, *names: str, default: int | None = None) -> int:
        """Read a whole number of at least 1."""
        value = self.number(*names, default=default)
        # NaN and infinity also fail this comparison.
        if not 1 <= value < 2**62 or value != int(value):
            self.fail(names[0], f"is {value:g}; a whole number of at least 1 was expected")
        return int(value)

    def positive(self, *names: str) -> float:
        """Read a positive, finite number."""
        value = self.number(*names)
        if not 0 < value < math.inf:
            self.fail(names[0], f"is {value:g}; a positive number was expected")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Read 0 or 1."""
        value = self.number(name, default=default)
        if value not in (0, 1):
            self.fail(name, f"is {value:g}; 0 or 1 was expected")
        return bool(value)

    def text(self, name: str) -> str:
        """Read one text."""
        return str(as_texts(np.asarray(self._scalar(name), object))[()])

    def numbers(self, *names: str) -> FloatArray:
        """Read real numbers of any shape."""
        values = self.array(*names)
        if values.dtype.kind not in "biuf":
            self.fail(names[0], f"has type {values.dtype}; real numbers were expected")
        return values.astype(np.float64)

    def integers(self, name: str) -> IntArray:
        """Read whole numbers of any shape."""
        values = self.numbers(name)
        if not np.all(np.abs(values) < 2**62) or np.any(values % 1):
            self.fail(name, "holds other than whole numbers")
        return values.astype(np.int64)

    def complexes(self, *names: str) -> ComplexArray | None:
        """Read complex numbers stored in any of the usual ways; None if they are neither complex nor real."""
        values = as_complex(self.array(*names))
        return values.astype(np.complex128) if values.dtype.kind in "fc" else None

    def triple(self, name: str, default: Triple | None = None) -> Triple:
        """Read values along x, y and z."""
        if default is not None and self.find(name) is None:
            return default
        values = self.numbers(name)
        if values.size != 3:
            self.fail(name, f"has shape {values.shape}; 3 values, for x, y and z, were expected")
        x, y, z = values.reshape(-1).tolist()
        return x, y, z

    def indices(self, flag: str, name: str, limit: int) -> IntArray | None:
        """Read a 1-based index list as 0-based; None if `flag` is 0 or, without the flag, if the list is missing."""
        if not self.flag(flag, default=self.find(name) is not None):
            return None
        index = self.integers(name).reshape(-1) - 1
        if index.size == 0 or index.min() < 0 or index.max() >= limit or np.unique(index).size != index.size:
            self.fail(name, f"does not hold distinct numbers from 1 to {limit}")
        return index

    def _scalar(self, *names: str, default: float | None = None) -> Any:
        stored = self.first(*names)
        if stored is not None and stored.size != 1:
            self.fail(names[0], f"has shape {stored.shape}; one value was expected")
        return self.array(*names, default=default).reshape(-1)[0]


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Whether a type is complex, or a compound of real and imaginary part."""
    return dtype.kind == "c" or dtype.names in COMPLEX_FIELDS


def as_complex(raw: NDArray[Any]) -> NDArray[Any]:
    """Turn compounds of real and imaginary part into complex numbers; return other arrays unchanged."""
    if raw.dtype.names not in COMPLEX_FIELDS:
        return raw
    real, imaginary = raw.dtype.names
    # Not computed as real + 1j * imaginary, because that would turn an infinite part into NaN.
    out = np.empty(raw.shape, np.complex64 if raw.dtype[0].itemsize <= 4 else np.complex128)
    out.real, out.imag = raw[real], raw[imaginary]
    return out


def as_texts(values: NDArray[Any]) -> TextArray:
    """Decode byte strings as UTF-8, with replacement of invalid bytes, up to the first zero byte."""
    texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in values.reshape(-1)]
    texts = [text.split("\0", 1)[0].encode("utf-8", "replace").decode("utf-8") for text in texts]
    return np.asarray(texts, np.str_).reshape(values.shape)


def shown(value: Any) -> str:
    """A value from a file for a message: shortened, and without control characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
