"""Frames as socket messages: a header in JSON, and the samples as they lie in memory; see docs/live.md."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.live.source import Incoming

VERSION = 1
DTYPES = "<f4", "<f8", "<i2", "<i4", "<c8", "<c16"
LARGEST_MESSAGE = 64 << 20  # bytes
LARGEST_HEADER = 4096


def encode(signals: NDArray[Any], number: int, timestamp: float, *, empty: bool = False) -> tuple[bytes, NDArray[Any]]:
    """The two parts of a message; the second is the array itself, which is sent without a copy."""
    signals = np.ascontiguousarray(signals)
    signals = signals.astype(signals.dtype.newbyteorder("<"), copy=False)
    header = {
        "version": VERSION,
        "number": number,
        "timestamp": timestamp,
        "empty": empty,
        "dtype": signals.dtype.str,
        "shape": signals.shape,
    }
    return json.dumps(header).encode(), signals


def decode(parts: list[bytes]) -> Incoming:
    """The frame in a message; raises InputError for an invalid message."""
    if len(parts) != 2:
        raise InputError(f"message of {len(parts)} parts: two were expected, a header and the samples")
    header, payload = _header(parts[0]), parts[1]
    number, timestamp, empty = (header.get(name) for name in ("number", "timestamp", "empty"))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
        raise InputError(f"message: number {number!r}: a whole number from 0 was expected")
    if not isinstance(timestamp, int | float) or isinstance(timestamp, bool) or not math.isfinite(timestamp):
        raise InputError(f"message of frame {number}: timestamp {timestamp!r}: a number of seconds was expected")
    if not isinstance(empty, bool):
        raise InputError(f"message of frame {number}: empty {empty!r}: true or false was expected")
    dtype, shape = header.get("dtype"), header.get("shape")
    if dtype not in DTYPES:
        raise InputError(f"message of frame {number}: dtype {dtype!r}: one of {', '.join(DTYPES)} was expected")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 3 or not all(map(_is_length, shape)):
        raise InputError(f"message of frame {number}: shape {shape!r}: one to three lengths were expected")
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if wanted != len(payload):
        raise InputError(
            f"message of frame {number}: {len(payload)} bytes of samples; {wanted} were expected of {shape} {dtype}"
        )
    return Incoming(np.frombuffer(payload, dtype).reshape(shape), number, float(timestamp), empty)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _header(part: bytes) -> dict[str, Any]:
    try:
        header = json.loads(part) if len(part) <= LARGEST_HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"message: its first part, of {len(part)} bytes, is no header in JSON")
    if header.get("version") != VERSION:
        raise InputError(f"message of version {header.get('version')!r}: {VERSION} was expected")
    return header
