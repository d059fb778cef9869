"""Convert an `Acquisition` to plain JSON values and back, to store it in files other than MDF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from mpi_fast.mdf.acquisition import Acquisition

_ARRAYS: dict[str, tuple[type, int]] = {  # type and number of axes
    "divider": (np.int64, 2),
    "strength": (np.float64, 3),
    "phase": (np.float64, 3),
    "gradient": (np.float64, 2),
    "gradients": (np.float64, 4),
    "offset_field": (np.float64, 3),
    "waveform": (np.str_, 2),
    "induction_factor": (np.float64, 1),
    "transfer_function": (np.complex128, 2),
}
_TEXTS = "unit", "start_time"


def to_plain(acquisition: Acquisition) -> dict[str, Any]:
    """Fields by name, with arrays as lists, and complex ones as a list of real and one of imaginary parts."""
    plain: dict[str, Any] = {}
    for field in fields(acquisition):
        value = getattr(acquisition, field.name)
        if isinstance(value, np.ndarray):
            value = [value.real.tolist(), value.imag.tolist()] if value.dtype.kind == "c" else value.tolist()
        plain[field.name] = dict(value) if isinstance(value, Mapping) else value
    return plain


def from_plain(plain: Mapping[str, Any]) -> Acquisition:
    """The inverse of `to_plain`; raises ValueError, TypeError or KeyError for other input."""
    values: dict[str, Any] = {}
    for field in fields(Acquisition):
        name, value = field.name, plain[field.name]
        if name in _ARRAYS:
            value = None if value is None else _array(name, value)
        elif name == "description":
            value = dict(value)
        elif name not in _TEXTS:
            value = type(0 if field.type == "int" else 0.0)(value)
        values[name] = value
    return Acquisition(**values)


def _array(name: str, value: Any) -> Any:
    kind, axes = _ARRAYS[name]
    if kind is np.complex128:
        real, imaginary = np.asarray(value, np.float64)
        array = real + 1j * imaginary
    else:
        array = np.asarray(value, kind)
    if array.ndim != axes:
        raise ValueError(f"{name}: {axes} axes were expected, not {array.ndim}")
    return array
