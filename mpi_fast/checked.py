"""Checks of arguments at the public entries, so that wrong ones give one message instead of an error of NumPy."""

import json
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

NUMBERS = {"u": "unsigned whole numbers", "i": "whole numbers", "f": "real numbers", "c": "complex numbers"}
REAL, ANY = "iuf", "iufc"  # kinds of types, as letters of `numpy.dtype.kind`


def checked_array(
    name: str,
    value: Any,
    shape: tuple[int | str, ...] | None = None,
    kinds: str | None = ANY,
    *,
    finite: bool = False,
) -> NDArray[Any]:
    """An argument as an array; without a copy if it is one.

    Parameters
    ----------
    name : str
        What the argument is, for messages.
    value : array_like
        Masked values become NaN, as they are unknown.
    shape : tuple of int or str, optional
        Lengths of the axes; a text is the name of an axis of any length. By default any shape.
    kinds : str, optional
        Letters of `numpy.dtype.kind`; None for any.
    finite : bool
        Refuse NaN and Inf.

    Raises
    ------
    InputError
        For anything else: another shape or type, lists of different lengths.
    """
    wanted = [NUMBERS[kind] for kind in kinds or ANY if kind != "u" or kinds == "u"]
    expected = " or ".join(wanted) + ("" if shape is None else f" ({', '.join(map(str, shape))})")
    try:
        array = _unmasked(value) if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    except (ValueError, TypeError) as error:  # lists of different lengths, arrays on a GPU
        raise InputError(f"{name}: expected an array of {expected}: {error}") from error
    fits = shape is None or (
        array.ndim == len(shape)
        and all(isinstance(want, str) or want == found for want, found in zip(shape, array.shape, strict=True))
    )
    if not fits or (kinds is not None and array.dtype.kind not in kinds):
        raise InputError(f"{name} {array.dtype} {array.shape}: expected {expected}")
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name}: NaN or Inf at {tuple(np.argwhere(~np.isfinite(array))[0].tolist())}")
    return array


def _unmasked(array: "np.ma.MaskedArray[Any, Any]") -> NDArray[Any]:
    if not np.ma.is_masked(array):
        return np.asarray(array)
    real = array.astype(np.float64) if array.dtype.kind in "biu" else array
    return np.asarray(np.ma.filled(real, np.nan))


def checked_count(name: str, value: Any, smallest: int, largest: int) -> int:
    """A whole number in a range, ends included; raises InputError for anything else."""
    try:
        number = smallest - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = smallest - 1
    if not smallest <= number <= largest:
        raise InputError(f"{name} {value!r}: expected a whole number from {smallest} to {largest}")
    return number


def checked_json(name: str, value: Any) -> None:
    """Raise InputError for what JSON does not have, such as arrays."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected texts, numbers, lists and dictionaries: {error}") from error
