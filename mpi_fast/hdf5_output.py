"""HDF5 files to write: where the disk is full that is one error, and HDF5 itself never knows.

HDF5 cannot close a file whose last parts it cannot write: it keeps it open, fails again with whatever is done next, and
crashes at the end of the process. So it writes through `_Sink`, which remembers the first failure and, from then on,
takes everything and stores nothing on the disk. What raises the failure is `OutputFile`, as soon as it is asked.
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
        Created, or emptied.
    options
        Of `h5py.File`.

    Raises
    ------
    OSError
        Where the block ends, and on `check`: what stopped the first write that failed. Everything after it is lost;
        remove the file.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._sink = _Sink(path)
        try:
            super().__init__(self._sink, "w", **options)
        except BaseException:
            self._sink.close()
            raise

    def __enter__(self) -> Self:
        # Ctrl+C waits while HDF5 calls back or writes, which would lose the exception, now and then.
        self._signals = ending_signals([signal.SIGINT], insist=False)
        self._signals.__enter__()
        return self

    def check(self) -> None:
        """Raise what stopped the first write that failed, if any did, or the signal that came meanwhile."""
        raise_waiting()
        if self._sink.failure is not None:
            raise self._sink.failure

    def close(self) -> None:
        """Close the file; whether all was written is told by `check`."""
        try:
            super().close()
        except BaseException:  # an interrupt in the middle of it
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
    """A file as `h5py` wants it, of which no method fails.

    Attributes
    ----------
    failure : OSError, or None
        What stopped the first write that failed. What was written since is kept in memory, for HDF5 may read it.
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
                while written < size:  # a disk that is nearly full takes a part
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
        """Nothing is held back."""

    def close(self) -> None:
        self._raw.close()
