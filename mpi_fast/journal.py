"""A journal: records that are appended to a file one by one, and are all there after whatever end came.

The file begins with a line that says what it is. Then come records, each its length and CRC-32 followed by its bytes;
the first says, as JSON, what the others were made from. A record counts if all of it is there: what a kill, a full disk
or a power cut left of the last one is cut off when the journal is opened again.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpi_fast.atomic import check_target, writing_to
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.leftovers import lock

MAGIC = b"mpi-fast journal 1\n"
HEAD = struct.Struct("<QI")
SYNC = 1.0  # s: a power cut loses the work of so long at most


class Journal:
    """Records in a file, which this process alone writes.

    Parameters
    ----------
    path : Path
    origin : mapping
        What the records are made from, as values that JSON knows.
    resume : bool
        Keep the records of a journal of the same origin that is there; otherwise they are dropped.

    Attributes
    ----------
    path : Path
    dropped : bool
        Whether there were records, and `resume` was not asked for.

    Raises
    ------
    InputError
        Another process is writing the journal, or what has its name is none.
    MismatchError
        The records that are there are of another origin; the message says what differs.
    OutputError
        The disk is full.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any], *, resume: bool) -> None:
        self.path = check_target(path)
        self._file = _open(self.path)
        try:
            self._ends = self._scan()
            if resume and self._ends:
                self._compare(origin)
            self.dropped = not resume and len(self._ends) > 1
            if not (resume and self._ends):
                self._ends = []
                self._cut(0)
                self._write(MAGIC)
                self.append(json.dumps(origin).encode())
            self._cut(self._ends[-1])
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[bytes]:
        for start in self._ends[:-1]:
            record = self._read(start)
            if record is None:
                raise OSError(f"{self.path}: was changed while it was read")
            yield record

    def append(self, record: bytes) -> None:
        """Add a record, which is there when this returns; `OutputError` if the disk is full, and all others are."""
        start = self._ends[-1] if self._ends else len(MAGIC)
        self._file.seek(start)
        self._write(HEAD.pack(len(record), zlib.crc32(record)) + record)
        self._ends.append(start + HEAD.size + len(record))
        if time.monotonic() - self._synced > SYNC:
            self.sync()

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        with writing_to(self.path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Keep the file."""
        try:
            self._cut(self._ends[-1])
            self.sync()
        finally:
            self._file.close()

    def remove(self) -> None:
        """The records are not needed any more."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, content: bytes) -> None:
        with writing_to(self.path):
            view = memoryview(content)
            while view:  # a disk that is nearly full takes a part
                view = view[self._file.write(view) :]

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._file.seek(end)

    def _read(self, start: int) -> bytes | None:
        """The record that begins there; None if it is not whole."""
        self._file.seek(start)
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        length, checksum = HEAD.unpack(head)
        if start + HEAD.size + length > self._size:
            return None
        record = self._file.read(length)
        return record if len(record) == length and zlib.crc32(record) == checksum else None

    def _scan(self) -> list[int]:
        """Where the records end that are whole."""
        self._synced = time.monotonic()
        begins = self._file.read(len(MAGIC))
        if begins != MAGIC:
            if MAGIC.startswith(begins):  # new, or as far as it came
                return []
            raise InputError(f"{self.path}: is no journal of mpi-fast: move it away, for its name is needed")
        ends, start = [], len(MAGIC)
        while (record := self._read(start)) is not None:
            start += HEAD.size + len(record)
            ends.append(start)
        return ends

    @property
    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _compare(self, origin: Mapping[str, Any]) -> None:
        begun = json.loads(self._read(len(MAGIC)) or b"{}")
        for name, value in json.loads(json.dumps(origin)).items():
            if begun.get(name) != value:
                raise MismatchError(
                    f"{self.path}: was begun with {name} = {begun.get(name)}, now it is {value}: expected the same "
                    "as then; without --resume everything is done anew"
                )


def _open(path: Path) -> Any:
    """Open a file to read and write, created if need be, and lock it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        if not lock(descriptor):
            file.close()
            raise InputError(f"{path}: another process is writing it")
        try:  # whoever had the lock may have removed the file meanwhile
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()
