"""Record live images to an MDF file, in a separate thread, so that a slow disk does not delay the stream."""

import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mpi_fast.atomic import check_target
from mpi_fast.errors import InputError
from mpi_fast.live.frames import LiveImage
from mpi_fast.live.waiting import Line
from mpi_fast.mdf import Acquisition, Grid, ReconstructionWriter
from mpi_fast.uncertainty import LEVELS

WAITING, AT_ONCE = 4096, 64


@dataclass(frozen=True)
class Recording:
    """State of the current or the last recording."""

    running: bool = False
    file: str | None = None
    images: int = 0
    dropped: int = 0
    error: str | None = None


class Recorder:
    """Writes each recording to a new file in a folder; the file appears when the recording ends.

    Parameters
    ----------
    folder : Path
    grid : Grid
        Grid of the images.
    acquisition : Acquisition, or None
        Acquisition parameters; without them nothing can be recorded.
    provenance : dict
        Origin of the images, stored in each file.
    """

    def __init__(self, folder: Path, grid: Grid, acquisition: Acquisition | None, provenance: dict[str, Any]) -> None:
        self._folder, self._grid, self._acquisition, self._provenance = folder, grid, acquisition, provenance
        self._line: Line[LiveImage] | None = None
        self._thread: threading.Thread | None = None
        self._changing = threading.Lock()
        self._path = Path()
        self._images = 0
        self._error: str | None = None

    @property
    def state(self) -> Recording:
        """State of the recording."""
        dropped = 0 if self._line is None else self._line.dropped
        running = self._thread is not None and self._thread.is_alive()  # until the file is complete
        return Recording(running, self._path.name or None, self._images, dropped, self._error)

    def start(self) -> None:
        """Start a recording, if none is running.

        Raises
        ------
        InputError
            If the acquisition parameters are unknown, or the file cannot be written.
        """
        with self._changing:
            if self._line is None or self._line.closed:
                self._end()
                self._begin()

    def _begin(self) -> None:
        if self._acquisition is None:
            raise InputError("recording: the calibration does not know how frames are acquired, as MDF files must say")
        self._path = self._folder / f"live-{datetime.now():%Y%m%d-%H%M%S-%f}.reco.mdf"
        check_target(self._path)
        self._images, self._error = 0, None
        self._line = Line(WAITING, "newest")
        self._thread = threading.Thread(
            target=self._write, args=(self._line, self._acquisition), name="mpi-fast recorder", daemon=True
        )
        self._thread.start()

    def put(self, image: LiveImage) -> None:
        """Record an image, if a recording is running."""
        if self._line is not None:
            self._line.put(image)

    def stop(self) -> None:
        """End the recording; returns when its file is complete."""
        with self._changing:
            self._end()

    def _end(self) -> None:
        if self._line is not None and self._thread is not None:
            self._line.close()
            self._thread.join()

    def _write(self, line: Line[LiveImage], acquisition: Acquisition) -> None:
        try:
            with ReconstructionWriter(self._path, self._grid, acquisition, provenance=self._provenance) as writer:
                while images := line.take(AT_ONCE):
                    image, std = (np.stack([getattr(one, name) for one in images]) for name in ("image", "std"))
                    writer.append(image, std, _found(images))
                    self._images += len(images)
        except Exception as error:  # the error would be lost otherwise
            self._error = f"{self._path.name}: {error}"
        finally:
            line.close(drop=True)


def _found(images: list[LiveImage]) -> dict[str, Any]:
    def all_of(name: str, count: int) -> Any:
        unknown = np.full(count, np.nan, np.float32)
        return np.stack([unknown if (found := getattr(one, name)) is None else found for one in images])

    return {
        "_frame": np.array([one.number for one in images], np.int64),
        "_snrDecibel": np.array([one.snr_db for one in images], np.float32),
        "_noiseFloor": np.array([one.noise_floor for one in images], np.float32),
        "_misfit": all_of("misfit", 3),
        "_quantiles": all_of("quantiles", len(LEVELS)),
        "_flags": np.array([one.flags for one in images], np.uint8),
    }
