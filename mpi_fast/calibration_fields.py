"""The fields of a saved calibration, and checks of their consistency."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import FileFormatError
from mpi_fast.grids import misshapen

PART_BYTES = 64 << 20  # part of an array that is checked at once
TOLERANCE = 1e-3  # of products that are exactly one or zero in theory; float32 has errors of 1e-6


@dataclass(frozen=True)
class Field:
    """An array of the file: its type (a letter of `numpy.dtype.kind`) and the sizes of its axes."""

    name: str
    kind: str
    shape: str


FIELDS = (
    Field("grid", "i", "G"),
    Field("field_of_view", "f", "G"),
    Field("selection", "b", "CK"),
    Field("frequencies", "f", "K"),
    Field("matrix", "c", "MN"),
    Field("weights", "f", "M"),
    Field("singular_values", "f", "R"),
    Field("basis", "f", "NR"),
    Field("projection", "c", "RM"),
)


def check_fields(path: Path, content: dict[str, Any]) -> None:
    """Raise FileFormatError unless the arrays named in `FIELDS` form a calibration that the facts fit."""
    _check_shapes(path, content)
    normal = content["facts"].get("normal")
    if normal is not None and bool(normal) != (len(content["grid"]) == 2):
        raise damaged(path, "facts", f"normal is {normal!r} of a grid {content['grid'].tolist()}")
    _check_values(path, content)
    _check_factors(path, content)


def check_facts(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, if those used in computations have the right types; raises FileFormatError otherwise."""
    for name, (expected, is_right) in KNOWN.items():
        if name in facts and not is_right(facts[name]):
            raise damaged(path, "facts", f"{name} is {facts[name]!r:.80}; {expected} was expected")
    place = [name for name in ("normal", "extent", "center") if name not in facts]
    if 0 < len(place) < 3:
        raise damaged(path, "facts", f"{place[0]} is missing")
    return facts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value < 2**62)


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_number(x) and math.isfinite(x) for x in value)


# Facts that are used in computations or formatted; all others are only shown.
KNOWN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "best_snr": ("a number", lambda value: value is None or _is_number(value)),
    "num_samples": ("a whole number", lambda value: value is not None and _is_count(value)),
    "candidate_rows": ("a whole number", _is_count),
    "enough_snr_rows": ("a whole number", _is_count),
    "background_frames": ("a whole number", _is_count),
    "normal": ("x, y, z or nothing", lambda value: value in ("x", "y", "z", "")),
    "extent": ("three numbers", _is_triple),
    "center": ("three numbers", _is_triple),
}


def damaged(path: Path, name: str, problem: object) -> FileFormatError:
    """The error for an invalid field."""
    return FileFormatError(f"{path}: damaged calibration: {name}: {problem}")


def _check_shapes(path: Path, content: dict[str, Any]) -> None:
    """Check that every letter in the shapes of the fields has one size."""
    grid = content["grid"]
    if (problem := misshapen(grid.tolist(), content["field_of_view"].tolist())) is not None:
        raise FileFormatError(f"{path}: damaged calibration: {problem}")
    selection = content["selection"]
    sizes = dict(zip("CK", selection.shape, strict=True)) | {"R": len(content["singular_values"])}
    sizes |= {"G": len(grid), "N": int(np.prod(grid, dtype=np.int64)), "M": int(selection.sum())}
    for field in FIELDS:
        value, expected = content[field.name], tuple(sizes[letter] for letter in field.shape)
        if value.shape != expected:
            raise damaged(path, field.name, f"its shape is {value.shape}, {expected} was expected")
    if not 1 <= sizes["R"] <= min(sizes["N"], 2 * sizes["M"] - 1):
        raise damaged(path, "singular_values", f"{sizes['R']} of {sizes['M']} rows and {sizes['N']} voxels")


def _check_values(path: Path, content: dict[str, Any]) -> None:
    for field in FIELDS:
        value = content[field.name]
        if field.kind in "fc" and not all(np.isfinite(part).all() for part in _parts(value)):
            raise damaged(path, field.name, "NaN or Inf")
    if not (content["weights"] > 0).all():
        raise damaged(path, "weights", "positive numbers were expected")
    if not (content["singular_values"] > 0).all():
        raise damaged(path, "singular_values", "positive numbers were expected")


@np.errstate(over="ignore", invalid="ignore")  # for invalid factors, which are reported below
def _check_factors(path: Path, content: dict[str, Any]) -> None:
    """Check that the columns of V and of U are orthonormal, and that the matrix is ``U S V^T`` in their span.

    The check uses random vectors: ``V^T V z = z`` fails for almost every z if it fails for one. Since
    ``Re(P A V z) = S z`` with the S of the matrix, z = +-1 gives this S, which must not depend on z. It must be in
    descending order, and no smaller than the stored singular values, which are shrunk.
    """
    p, s = content["projection"], content["singular_values"].astype(np.float64)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (len(s), 2))
    along, back = [], np.zeros_like(z)
    for part in _parts(content["basis"]):
        v = part.astype(np.float64)
        along.append(v @ z)
        back += v.T @ along[-1]
    _require(path, "basis", back, z, "its columns are not orthonormal")
    u = (p.T @ z).conj() / np.square(content["weights"])[:, None]
    _require(path, "projection", (p @ u).real, z, "its rows are not orthonormal when whitened")
    seen = np.concatenate(along)
    signals = np.concatenate([part.astype(np.complex128) @ seen for part in _parts(content["matrix"])])
    first, second = (z * (p @ signals).real / s.max()).T
    _require(path, "matrix", first, second, "it is not the one that was reduced")
    if (first < s / s.max() - TOLERANCE).any() or (np.diff(first) > TOLERANCE).any():
        raise damaged(path, "singular_values", "they are not those of the matrix")


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts of the array that are small enough to be copied, because the array may fill the memory."""
    step = max(1, PART_BYTES * len(array) // max(array.nbytes, 1))
    return (array[start : start + step] for start in range(0, len(array), step))


def _require(path: Path, name: str, found: NDArray[Any], expected: NDArray[Any], problem: str) -> None:
    if not np.abs(found - expected).max() < TOLERANCE:  # also true for NaN
        raise damaged(path, name, problem)
