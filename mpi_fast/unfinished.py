"""Reconstruct in chunks that are stored at once, so that finished images survive any end of the process.

Images are first written to a journal beside the output, and to the output when all of them are complete. A resumed run
starts after the last complete chunk, in the same state, so that its images are those of an uninterrupted run, byte for
byte.
"""

import io
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import MPIFastWarning, NoImagesError
from mpi_fast.journal import Journal
from mpi_fast.misfit import RowNoise
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.verdict import Verdict

SUFFIX = ".part"


class Source(Protocol):
    """A source of frames in chunks, such as `pairing.MeasuredRows`."""

    begin: int

    @property
    def num_frames(self) -> int:
        """The number of all frames."""
        ...

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the frames in the last chunk."""
        ...

    @property
    def times(self) -> NDArray[np.float64] | None:
        """Start times of the frames in the last chunk, in s."""
        ...

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


@dataclass(frozen=True)
class Chunk:
    """Images with the numbers and times of their frames.

    Attributes
    ----------
    result : Reconstruction
    numbers : (F,) int64
    times : (F,) float64, or None
    verdict : Verdict
        State of the verdict after these frames.
    """

    result: Reconstruction
    numbers: NDArray[np.int64]
    times: NDArray[np.float64] | None
    verdict: Verdict

    def __len__(self) -> int:
        return len(self.numbers)

    def pack(self) -> bytes:
        """Convert to bytes."""
        verdict, noise = self.verdict, self.verdict.noise
        arrays = {name: getattr(self, name) for name in ("numbers", "times")}
        arrays |= {f"result.{one.name}": getattr(self.result, one.name) for one in fields(Reconstruction)}
        arrays |= {
            f"verdict.{name}": getattr(verdict, name) for name in ("judge_images", "receiver", "image", "frames")
        }
        arrays |= {f"noise.{one.name}": getattr(noise, one.name) for one in fields(RowNoise)}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{name: value for name, value in arrays.items() if value is not None})
        return buffer.getvalue()

    @classmethod
    def unpack(cls, content: bytes) -> Self:
        """The chunk from bytes by `pack`."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: array if array.ndim else array.item() for name, array in file.items()}

        def group(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

        verdict = Verdict(RowNoise(**group("noise.")), **group("verdict."))
        return cls(Reconstruction(**group("result.")), arrays["numbers"], arrays.get("times"), verdict)

    def without(self, flag: int) -> "Chunk":
        """Only the images of frames without this flag."""
        if self.result.flags is None:
            return self
        kept = (self.result.flags & np.uint8(flag)) == 0

        def part(values: Any) -> Any:
            return values[kept] if isinstance(values, np.ndarray) else values

        result = Reconstruction(**{one.name: part(getattr(self.result, one.name)) for one in fields(Reconstruction)})
        return Chunk(result, part(self.numbers), part(self.times), self.verdict)


class Unfinished:
    """The images of an output until all of them are complete.

    Parameters
    ----------
    output : Path
        Output file; the journal is beside it, with the same name and `SUFFIX`.
    origin : mapping
        Everything that determines the images; see `Journal`.
    resume : bool
        Continue after the images of an interrupted run of the same origin.

    Attributes
    ----------
    done : int
        Number of frames with images.

    Raises
    ------
    InputError, MismatchError, OutputError
        See `Journal`.

    Warns
    -----
    MPIFastWarning
        About kept images, if the block ends early, and about dropped images.
    """

    def __init__(self, output: Path, origin: Mapping[str, Any], *, resume: bool) -> None:
        self._journal = Journal(output.with_name(output.name + SUFFIX), origin, resume=resume)
        if self._journal.dropped:
            warnings.warn(
                f"{self._journal.path}: what an interrupted run left is dropped; --resume would have gone on with it",
                MPIFastWarning,
                stacklevel=2,
            )
        self.done = 0
        self._verdict: Verdict | None = None
        for chunk in self.chunks():
            self.done, self._verdict = self.done + len(chunk), chunk.verdict

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, NoImagesError) or not len(self._journal):
            self._journal.remove()
            return
        with suppress(OSError):  # the original error is more informative
            self._journal.close()
        frames = "1 frame is" if self.done == 1 else f"{self.done} frames are"
        warnings.warn(
            f"{self._journal.path}: {frames} kept; --resume goes on from there",
            MPIFastWarning,
            stacklevel=2,
        )

    def chunks(self) -> Iterator[Chunk]:
        """All finished chunks, in order."""
        return map(Chunk.unpack, self._journal)

    def run(
        self, reconstruct: Reconstructor, source: Source, workers: int = 1, cluster: str | None = None
    ) -> Iterator[Chunk]:
        """Reconstruct the missing chunks, with several processes or a cluster, and yield each when it is stored."""
        source.begin = self.done
        frames = _Noted(source)
        for result in reconstruct.stream(frames, self._verdict, workers, cluster):
            chunk = Chunk(result, *frames.notes.popleft(), reconstruct.verdict)
            self._journal.append(chunk.pack())
            self.done += len(chunk)
            yield chunk


class _Noted:
    """Iterates over the chunks of a source, and keeps their numbers and times until their images are made."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.notes: deque[tuple[NDArray[np.int64], NDArray[np.float64] | None]] = deque()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for signals in self._source:
            self.notes.append((self._source.numbers, self._source.times))
            yield signals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
