"""A journal: records that are appended to a file one by one and survive any end of the process.

The file begins with a line that identifies it. Each record consists of its length, its CRC-32 and its bytes. The first
record describes, as JSON, the origin of the others. Only complete records count: an incomplete last record, left by a
kill, a full disk or a power cut, is removed when the journal is opened again.
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
SYNC = 1.0  # s; a power cut loses at most the work of this time


class Journal:
    """Records in a file that only this process writes.

    Parameters
    ----------
    path : Path
    origin : mapping
        Description of the inputs of the records, as JSON values.
    resume : bool
        Keep the records of an existing journal of the same origin; otherwise they are dropped.

    Attributes
    ----------
    path : Path
    dropped : bool
        Whether existing records were dropped because of ``resume=False``.

    Raises
    ------
    InputError
        If another process is writing the journal, or if the file is not a journal.
    MismatchError
        If the existing records have another origin; the message names the difference.
    OutputError
        If the disk is full.
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
        """Append a record; raises OutputError if the disk is full, and then keeps all earlier records."""
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
        """Close the file and keep it."""
        try:
            self._cut(self._ends[-1])
            self.sync()
        finally:
            self._file.close()

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, content: bytes) -> None:
        with writing_to(self.path):
            view = memoryview(content)
            while view:  # a nearly full disk may accept only a part
                view = view[self._file.write(view) :]

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._file.seek(end)

    def _read(self, start: int) -> bytes | None:
        """The record at a position; None if it is incomplete."""
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
        """End positions of the complete records."""
        self._synced = time.monotonic()
        first = self._file.read(len(MAGIC))
        if first != MAGIC:
            if MAGIC.startswith(first):  # a new file, or one with an incomplete first line
                return []
            raise InputError(f"{self.path}: is not a journal of mpi-fast: move it away, because its name is needed")
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
        try:  # another process with the lock may have removed the file meanwhile
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()
