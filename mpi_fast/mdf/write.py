"""Common content of all kinds of MDF files, and checks that all writers share."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpi_fast.errors import InputError
from mpi_fast.hdf5_output import OutputFile
from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.array_types import FloatArray, IntArray, Triple
from mpi_fast.mdf.specification import TYPES
from mpi_fast.termination import uninterrupted

_CHUNK_BYTES = 1 << 20
_NUMPY = {"complex": "complex128"}  # types of the specification with another name in NumPy


@dataclass(frozen=True)
class Metadata:
    """Study, experiment, tracer and scanner: the texts that MDF requires.

    `concentration` is in mol of `solute` per litre, `volume` in litres.
    """

    study: str = "mpi-fast"
    experiment: str = "mpi-fast"
    description: str = ""
    subject: str = ""
    simulation: bool = False
    facility: str = ""
    manufacturer: str = ""
    scanner: str = ""
    operator: str = ""
    topology: str = "FFP"
    tracer: str = ""
    batch: str = ""
    vendor: str = ""
    solute: str = "Fe"
    concentration: float = 0.0
    volume: float = 0.0


class GrowingDataset:
    """A dataset of an `OutputFile` that grows along its first axis; the first block determines shape and type."""

    def __init__(self, h5: OutputFile, name: str) -> None:
        self._h5, self._name = h5, name
        self._data: Any = None

    @property
    def length(self) -> int:
        """Length of the first axis; 0 before the first block."""
        return 0 if self._data is None else len(self._data)

    @uninterrupted
    def append(self, block: NDArray[Any]) -> None:
        """Append `block`; raises InputError for another type, and OSError if the disk is full."""
        if self._data is None:
            item = block.dtype.itemsize * int(np.prod(block.shape[1:]))
            # Chunks of whole frames are read fastest. HDF5 refuses huge chunks, so h5py chooses their size.
            chunks = (max(1, _CHUNK_BYTES // item), *block.shape[1:]) if item <= _CHUNK_BYTES else True
            shape, limit = (0, *block.shape[1:]), (None, *block.shape[1:])
            self._data = self._h5.create_dataset(self._name, shape, block.dtype, maxshape=limit, chunks=chunks)
        if block.dtype != self._data.dtype:
            raise InputError(f"{self._name}: {self._data.dtype} was expected as in the first chunk, not {block.dtype}")
        start = self.length
        self._data.resize(start + len(block), axis=0)
        self._data[start:] = block
        self._h5.check()


def put(h5: Any, name: str, value: ArrayLike | None) -> None:
    """Write one dataset with the type of the specification, or nothing for None; custom fields are texts."""
    if value is None:
        return
    kind = TYPES.get(name, "str")
    if kind == "str":
        h5.create_dataset(name, data=np.asarray(value, object), dtype=h5py.string_dtype("utf-8"))
    else:
        h5.create_dataset(name, data=np.asarray(value).astype(_NUMPY.get(kind, kind)))


def put_common(h5: Any, acquisition: Acquisition, metadata: Metadata | None, num_frames: int) -> None:
    """Write every group that all kinds of MDF files share; metadata default to the acquisition's description."""
    a, m, now = acquisition, metadata or Metadata(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    drive_channels, tones = a.divider.shape
    periods = (a.periods_per_frame, drive_channels, tones)
    gradient = None if a.gradients is None else _for_each(a.gradients, a.periods_per_frame)
    offset = None if a.offset_field is None else _for_each(a.offset_field, a.periods_per_frame)
    values: dict[str, ArrayLike | None] = {
        "/version": "2.1.0",
        "/uuid": str(uuid.uuid4()),
        "/time": now,
        "/study/name": m.study,
        "/study/number": 1,
        "/study/uuid": str(uuid.uuid4()),
        "/study/description": m.description,
        "/experiment/name": m.experiment,
        "/experiment/number": 1,
        "/experiment/uuid": str(uuid.uuid4()),
        "/experiment/description": m.description,
        "/experiment/subject": m.subject,
        "/experiment/isSimulation": m.simulation,
        "/tracer/name": [m.tracer],
        "/tracer/batch": [m.batch],
        "/tracer/vendor": [m.vendor],
        "/tracer/solute": [m.solute],
        "/tracer/concentration": [m.concentration],
        "/tracer/volume": [m.volume],
        "/scanner/facility": m.facility,
        "/scanner/manufacturer": m.manufacturer,
        "/scanner/name": m.scanner,
        "/scanner/operator": m.operator,
        "/scanner/topology": m.topology,
        "/acquisition/startTime": a.start_time or now,
        "/acquisition/gradient": gradient,
        "/acquisition/offsetField": offset,
        "/acquisition/numAverages": a.num_averages,
        "/acquisition/numFrames": num_frames,
        "/acquisition/numPeriodsPerFrame": a.periods_per_frame,
        "/acquisition/drivefield/baseFrequency": a.base_frequency,
        "/acquisition/drivefield/cycle": a.cycle,
        "/acquisition/drivefield/divider": a.divider,
        "/acquisition/drivefield/numChannels": drive_channels,
        "/acquisition/drivefield/phase": None if np.isnan(a.phase).all() else np.broadcast_to(a.phase, periods),
        "/acquisition/drivefield/strength": np.broadcast_to(a.strength, periods),
        "/acquisition/drivefield/waveform": np.full(a.divider.shape, "sine") if a.waveform is None else a.waveform,
        "/acquisition/receiver/bandwidth": a.bandwidth,
        "/acquisition/receiver/numChannels": a.num_channels,
        "/acquisition/receiver/numSamplingPoints": a.num_samples,
        "/acquisition/receiver/unit": a.unit or "V",
        "/acquisition/receiver/inductionFactor": a.induction_factor,
        "/acquisition/receiver/transferFunction": a.transfer_function,
    }
    if metadata is None:
        values |= {name: value for name, value in a.description.items() if _is_writable(name, value)}
    for name, value in values.items():
        put(h5, name, value)


def _is_writable(name: str, value: Any) -> bool:
    """Whether a value has the type of the specification, because files may contain any type."""
    kind = TYPES.get(name)
    if kind == "str":
        return all(isinstance(text, str) for text in np.asarray(value, object).reshape(-1))
    try:
        return kind is not None and np.asarray(value).astype(_NUMPY.get(kind, kind)) is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _for_each(values: FloatArray, periods: int) -> FloatArray:
    """Repeat values that are stated once, (1, Y, ...), for each period: (J, Y, ...)."""
    return np.broadcast_to(values, (periods, *values.shape[1:])) if len(values) == 1 else values


def put_flags(
    h5: Any,
    is_background: NDArray[np.bool_],
    frequency_index: IntArray | None,
    background_corrected: bool,
    *,
    fast: bool = False,
    permutation: IntArray | None = None,
) -> None:
    """Write the flags that describe the storage of frames in /measurement/data."""
    flags = {
        "isBackgroundCorrected": background_corrected,
        "isBackgroundFrame": is_background,
        "isFastFrameAxis": fast,
        "isFourierTransformed": h5["/measurement/data"].dtype.kind == "c",
        "isFramePermutation": permutation is not None,
        "isFrequencySelection": frequency_index is not None,
        "isSparsityTransformed": False,
        "isSpectralLeakageCorrected": False,
        "isTransferFunctionCorrected": False,
    }
    for name, value in flags.items():
        put(h5, f"/measurement/{name}", value)
    for name, index in (("framePermutation", permutation), ("frequencySelection", frequency_index)):
        put(h5, f"/measurement/{name}", None if index is None else np.asarray(index) + 1)


def put_grid(h5: Any, group: str, size: tuple[int, int, int], extent: Triple, center: Triple) -> None:
    """Write the grid of /calibration or /reconstruction."""
    for name, value in (
        ("size", size),
        ("fieldOfView", extent),
        ("fieldOfViewCenter", center),
        ("order", "xyz"),
    ):
        put(h5, f"{group}/{name}", value)


def count_points(acquisition: Acquisition, frequency_index: IntArray | None) -> int:
    """Return how many frequencies are stored, K'."""
    limit = acquisition.num_frequencies
    if frequency_index is None:
        return limit
    require_distinct("frequency_index", np.asarray(frequency_index), limit)
    return len(frequency_index)


def require_distinct(name: str, index: IntArray, limit: int) -> None:
    """Raise InputError unless `index` lists distinct numbers from 0 to `limit` - 1."""
    in_range = not index.size or 0 <= index.min() <= index.max() < limit
    if index.ndim != 1 or not in_range or np.unique(index).size != index.size:
        raise InputError(f"{name}: distinct numbers from 0 to {limit - 1} were expected")


def require_shape(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise InputError unless the shapes agree."""
    if values.shape != shape:
        raise InputError(f"{name}: shape {shape} was expected, not {values.shape}")
