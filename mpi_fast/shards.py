"""Merge reconstructions of parts of a measurement, such as those of jobs in a batch system."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError, MismatchError, MPIFastWarning
from mpi_fast.mdf import ReconstructionFile
from mpi_fast.reconstruction import Reconstruction

OWN = "command", "runs_on"  # entries in which parts may differ
NEEDED = "_frame", "_snrDecibel", "_noiseFloor"
CHUNK = 64
Numbers = NDArray[np.int64]
Times = NDArray[np.float64]


def in_order(files: Sequence[ReconstructionFile]) -> list[ReconstructionFile]:
    """Check that parts belong together, and sort them by their frames.

    Raises
    ------
    InputError
        If a file is not by mpi-fast, or contains no images.
    MismatchError
        If two parts differ in grid, provenance or kinds of values, or contain the same frames.

    Warns
    -----
    MPIFastWarning
        For missing frames between two parts.
    """
    numbers = {file: _numbers(file) for file in files}
    ordered = sorted(files, key=lambda file: int(numbers[file][0]))
    for file in ordered[1:]:
        _compare(ordered[0], file)
    averaged = int(ordered[0].provenance.get("averaged", 1))
    for before, after in pairwise(ordered):
        last, first = int(numbers[before][-1]) + averaged - 1, int(numbers[after][0])
        if first <= last:
            raise MismatchError(
                f"{before.path}, {after.path}: both hold frame {first}: parts without common frames were expected"
            )
        if first > last + 1:
            warnings.warn(
                f"frames {last + 1} to {first - 1}, between {before.path} and {after.path}, are in none of the files",
                MPIFastWarning,
                stacklevel=2,
            )
    return ordered


def provenance_of(ordered: Sequence[ReconstructionFile]) -> dict[str, Any]:
    """Provenance common to all parts, and that of each part."""
    common = {name: value for name, value in ordered[0].provenance.items() if name not in OWN}
    own = [{name: file.provenance[name] for name in OWN if name in file.provenance} for file in ordered]
    parts = [{"file": file.path.name, **one} for file, one in zip(ordered, own, strict=True)]
    return {**common, "merged": parts}


def images_of(file: ReconstructionFile) -> Iterator[tuple[Reconstruction, Numbers, Times | None]]:
    """Yield the images of a part in chunks, with the numbers and times of their frames."""
    found = {name: file.found(name) for name in file.names}
    for start in range(0, len(file.image), CHUNK):
        part = slice(start, start + CHUNK)
        own = {name: values[part] for name, values in found.items()}
        image = file.image[part]
        std = np.full_like(image, np.nan) if file.std is None else file.std[part]
        kept = {name: own.get(f"_{name}") for name in ("misfit", "flags", "quantiles")}
        result = Reconstruction(image, std, own["_snrDecibel"], own["_noiseFloor"], 0.0, **kept)
        yield result, np.asarray(own["_frame"], np.int64), own.get("_time")


def _numbers(file: ReconstructionFile) -> Numbers:
    missing = [name for name in NEEDED if name not in file.names]
    if missing:
        raise InputError(f"{file.path}: has no /reconstruction/{missing[0]}: a file that mpi-fast wrote was expected")
    numbers = np.asarray(file.found("_frame"), np.int64)
    if not numbers.size or (np.diff(numbers) <= 0).any():
        raise InputError(f"{file.path}: /reconstruction/_frame: ascending numbers of at least one frame were expected")
    return numbers


def _compare(one: ReconstructionFile, other: ReconstructionFile) -> None:
    where = f"{one.path}, {other.path}: cannot be merged"
    first, second = _leaves(one.provenance), _leaves(other.provenance)
    for name in sorted(first.keys() | second.keys()):
        if name not in OWN and first.get(name) != second.get(name):
            raise MismatchError(f"{where}: {name} is {_short(first.get(name))} and {_short(second.get(name))}")
    grids = [(file.grid.shape, file.grid.axes, file.grid.extent, file.grid.center) for file in (one, other)]
    if grids[0] != grids[1]:
        raise MismatchError(f"{where}: their grids are {one.grid.shape} and {other.grid.shape}, or lie elsewhere")
    if set(one.names) != set(other.names) or (one.std is None) != (other.std is None):
        raise MismatchError(f"{where}: one of them keeps of each frame what the other does not")


def _leaves(values: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Entries of nested mappings, by names such as "calibration.rows"."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= _leaves(value, f"{within}{name}.") if isinstance(value, dict) else {f"{within}{name}": value}
    return leaves


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
