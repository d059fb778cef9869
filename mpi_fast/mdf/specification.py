"""MDF v2.1 as a table of required and optional datasets, and a check of files against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpi_fast.errors import FileFormatError
from mpi_fast.mdf.datasets import Datasets
from mpi_fast.mdf.hdf5 import Stored

# Dataset, type, and axes as symbols with one length in the whole file ("*" fits any length;
# K counts stored frequencies). After the type, "?": optional; "?flag": optional unless that flag is set.
_SPECIFICATION = """
/version str
/uuid str
/time str
/study/description str
/study/name str
/study/number int64
/study/time str?
/study/uuid str
/experiment/description str
/experiment/isSimulation int8
/experiment/name str
/experiment/number int64
/experiment/subject str
/experiment/uuid str
/tracer/batch str A
/tracer/concentration float64 A
/tracer/injectionTime str? A
/tracer/name str A
/tracer/solute str A
/tracer/vendor str A
/tracer/volume float64 A
/scanner/boreSize float64?
/scanner/facility str
/scanner/manufacturer str
/scanner/name str
/scanner/operator str
/scanner/topology str
/acquisition/gradient float64? J Y 3 3
/acquisition/numAverages int64
/acquisition/numFrames int64
/acquisition/numPeriodsPerFrame int64
/acquisition/offsetField float64? J Y 3
/acquisition/startTime str
/acquisition/drivefield/baseFrequency float64
/acquisition/drivefield/cycle float64
/acquisition/drivefield/divider int64 D F
/acquisition/drivefield/numChannels int64
/acquisition/drivefield/phase float64 J D F
/acquisition/drivefield/strength float64 J D F
/acquisition/drivefield/waveform str D F
/acquisition/receiver/bandwidth float64
/acquisition/receiver/dataConversionFactor float64? C 2
/acquisition/receiver/inductionFactor float64? C
/acquisition/receiver/numChannels int64
/acquisition/receiver/numSamplingPoints int64
/acquisition/receiver/transferFunction complex? C *
/acquisition/receiver/unit str
/measurement/data {data}
/measurement/framePermutation int64?isFramePermutation N
/measurement/frequencySelection int64?isFrequencySelection K
/measurement/isBackgroundCorrected int8
/measurement/isBackgroundFrame int8 N
/measurement/isFastFrameAxis int8
/measurement/isFourierTransformed int8
/measurement/isFramePermutation int8
/measurement/isFrequencySelection int8
/measurement/isSparsityTransformed int8
/measurement/isSpectralLeakageCorrected int8
/measurement/isTransferFunctionCorrected int8
/measurement/sparsityTransformation str?isSparsityTransformed
/measurement/subsamplingIndices int64?isSparsityTransformed J C K *
/calibration/deltaSampleSize float64? 3
/calibration/fieldOfView float64? 3
/calibration/fieldOfViewCenter float64? 3
/calibration/method str
/calibration/offsetFields float64? * 3
/calibration/order str?
/calibration/positions float64? * 3
/calibration/size int64? 3
/calibration/snr float64? J C K
/reconstruction/data number Q P S
/reconstruction/fieldOfView float64? 3
/reconstruction/fieldOfViewCenter float64? 3
/reconstruction/isOverscanRegion int8? P
/reconstruction/order str?
/reconstruction/positions float64? P 3
/reconstruction/size int64? 3
"""

TYPES = {line.split()[0]: line.split()[1].split("?")[0] for line in _SPECIFICATION.strip().split("\n")}

_OPTIONAL_GROUPS = ("tracer", "measurement", "calibration", "reconstruction")

# Datasets whose value is the length of an axis.
_LENGTHS = {
    "N": "/acquisition/numFrames",
    "J": "/acquisition/numPeriodsPerFrame",
    "D": "/acquisition/drivefield/numChannels",
    "C": "/acquisition/receiver/numChannels",
    "V": "/acquisition/receiver/numSamplingPoints",
}


def validate(path: str | Path) -> list[str]:
    """List deviations of a file from MDF v2.1: missing datasets, wrong types, and sizes that do not agree.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of str
        One sentence for each deviation; empty if there is none. Readers tolerate many of them.

    Raises
    ------
    FileFormatError
        If the file cannot be opened as HDF5.
    """
    datasets = Datasets(path)
    try:
        lengths = {letter: n for letter, name in _LENGTHS.items() if (n := _whole_number(datasets, name)) is not None}
        selection = _find(datasets, "/measurement/frequencySelection")
        if _is_set(datasets, "isFrequencySelection") and selection is not None:
            lengths["K"] = selection.size
        elif "V" in lengths:
            lengths["K"] = lengths["V"] // 2 + 1
        table = _SPECIFICATION.format(data=_data_line(datasets)).strip().split("\n")
        return [deviation for line in table for deviation in _deviations(datasets, line.split(), lengths)]
    finally:
        datasets.close()


def _find(datasets: Datasets, name: str) -> Stored | None:
    """Return a dataset, or None if it is missing or cannot be read."""
    try:
        return datasets.find(name)
    except FileFormatError:
        return None


def _whole_number(datasets: Datasets, name: str) -> int | None:
    item = _find(datasets, name)
    if item is None or item.size != 1 or item.dtype.kind not in "iub":
        return None
    return int(item.read().reshape(-1)[0])


def _is_set(datasets: Datasets, flag: str) -> bool:
    return bool(_whole_number(datasets, f"/measurement/{flag}"))


def _data_line(datasets: Datasets) -> str:
    """Return type and axes of /measurement/data, which depend on flags."""
    kind, points = ("complex", "K") if _is_set(datasets, "isFourierTransformed") else ("number", "V")
    frames = "*" if _is_set(datasets, "isSparsityTransformed") else "N"
    axes = f"J C {points} {frames}" if _is_set(datasets, "isFastFrameAxis") else f"{frames} J C {points}"
    return f"{kind} {axes}"


def _deviations(datasets: Datasets, line: list[str], lengths: dict[str, int]) -> list[str]:
    """Compare one dataset with its line of the table."""
    name, mark, *axes = line
    kind, optional, unless = mark.partition("?")
    try:
        item, group = datasets.find(name), name.split("/")[1]
    except FileFormatError as error:
        return [f"{name}: {str(error).removeprefix(f'{datasets.path}: {name} ')}"]
    if item is None:
        absent = group in _OPTIONAL_GROUPS and not datasets.has(group)
        return [] if absent or (optional and not _is_set(datasets, unless)) else [f"{name}: is missing"]
    found = []
    if not _is_kind(item.dtype, kind):
        found.append(f"{name}: has type {item.dtype}; {kind} was expected")
    # MDF defines scalars as arrays of length 1; HDF5 also has true scalars, and files contain both.
    shape = () if not axes and item.shape == (1,) else item.shape
    fits = len(shape) == len(axes) and all(_fits(n, axis, lengths) for n, axis in zip(shape, axes, strict=True))
    if not fits:
        known = ", ".join(f"{axis} = {lengths[axis]}" for axis in axes if axis in lengths)
        expected = (" x ".join(axes) or "a scalar") + (f" with {known}" if known else "")
        found.append(f"{name}: has shape {shape}; {expected} was expected")
    return found


def _fits(length: int, axis: str, lengths: dict[str, int]) -> bool:
    """Compare a length with a number or a symbol; a symbol without a length gets this one."""
    if axis == "*":
        return True
    return length == (int(axis) if axis.isdigit() else lengths.setdefault(axis, length))


def _is_kind(dtype: Any, kind: str) -> bool:
    if kind == "str":
        return h5py.check_string_dtype(dtype) is not None
    is_complex = dtype.kind == "c" or dtype.names == ("r", "i")
    if kind in ("complex", "number"):
        return is_complex or (kind == "number" and dtype.kind in "iuf")
    return bool(dtype == np.dtype(kind))
