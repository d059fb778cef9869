"""Write HDF5 files so that a full disk gives one error and does not disturb HDF5.

HDF5 cannot close a file if it cannot write the last parts. It keeps the file open, fails again at the next operation,
and crashes at the end of the process. So it writes through `_Sink`, which stores the first failure, and from then on
accepts everything without writing to the disk. `OutputFile` raises the failure at the next check.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

from mpi_fast.termination import ending_signals, raise_waiting, uninterrupted


class OutputFile(h5py.File):  # type: ignore[misc]
    """A new HDF5 file.

    Parameters
    ----------
    path : str or Path
        File to create or overwrite.
    options
        Options of `h5py.File`.

    Raises
    ------
    OSError
        At the end of the block, and by `check`: the error of the first failed write. Later data are lost, so the file
        must be removed.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._sink = _Sink(path)
        try:
            super().__init__(self._sink, "w", **options)
        except BaseException:
            self._sink.close()
            raise

    def __enter__(self) -> Self:
        # Ctrl+C waits while HDF5 calls back or writes, which might lose the exception.
        self._signals = ending_signals([signal.SIGINT], insist=False)
        self._signals.__enter__()
        return self

    def check(self) -> None:
        """Raise the error of the first failed write, or the signal that arrived meanwhile, if any."""
        raise_waiting()
        if self._sink.failure is not None:
            raise self._sink.failure

    def close(self) -> None:
        """Close the file; use `check` to see whether everything was written."""
        try:
            super().close()
        except BaseException:  # an interrupt while the file is closed
            self._sink.abandon()
            super().close()
            raise
        finally:
            self._sink.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._sink.abandon()
            self.close()
        finally:
            self._signals.__exit__(None, None, None)
        if error is None:
            self.check()


class _Sink:
    """A file object for `h5py` whose methods never fail.

    Attributes
    ----------
    failure : OSError, or None
        Error of the first failed write. Later data are kept in memory, because HDF5 may read them.
    """

    def __init__(self, path: str | Path) -> None:
        self._raw = Path(path).open("w+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.failure: OSError | None = None
        self._position = self._end = 0
        self._lost: list[tuple[int, bytes]] = []

    def abandon(self) -> None:
        """Write nothing more to the disk."""
        self.failure = self.failure or OSError("abandoned")

    @uninterrupted
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self._end if whence == os.SEEK_END else 0)
        return self._position

    @uninterrupted
    def tell(self) -> int:
        return self._position

    @uninterrupted
    def write(self, data: memoryview) -> int:
        start, size = self._position, len(data)
        if self.failure is None:
            try:
                self._raw.seek(start)
                written = 0
                while written < size:  # a nearly full disk may accept only a part
                    written += self._raw.write(data[written:])
            except OSError as error:
                self.failure = error
        if self.failure is not None:
            self._lost.append((start, bytes(data)))
        self._position = start + size
        self._end = max(self._end, self._position)
        return size

    @uninterrupted
    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    @uninterrupted
    def readinto(self, buffer: memoryview) -> int:
        start, size = self._position, len(buffer)
        buffer[:] = bytes(size)
        try:
            self._raw.seek(start)
            self._raw.readinto(buffer)
        except OSError as error:
            self.failure = self.failure or error
        for begin, data in self._lost:
            first, last = max(start, begin), min(start + size, begin + len(data))
            if first < last:
                buffer[first - start : last - start] = data[first - begin : last - begin]
        self._position = start + size
        return size

    @uninterrupted
    def truncate(self, size: int) -> int:
        if self.failure is None:
            try:
                self._raw.truncate(size)
            except OSError as error:
                self.failure = error
        self._end = size
        return size

    @uninterrupted
    def flush(self) -> None:
        """Do nothing, because nothing is buffered."""

    def close(self) -> None:
        self._raw.close()
