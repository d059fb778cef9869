"""A measurement file as a source of live frames, at the rate of its acquisition."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mpi_fast.calibration import Calibration
from mpi_fast.errors import MPIFastError
from mpi_fast.live.source import Clock, Incoming
from mpi_fast.mdf import MeasurementFile
from mpi_fast.pairing import MeasuredRows

CHUNK = 16  # frames read at once


class FileSource:
    """The frames of an MDF measurement, with its own background subtracted.

    Parameters
    ----------
    path : Path
    calibration : Calibration
    rate : float, optional
        Frames per second; by default that of the scanner, one frame per cycle times number of averages.
    repeat : bool
        Start again at the end, for ever.

    Raises
    ------
    FileFormatError, MismatchError
        If the file is not a measurement, or does not fit the calibration.
    """

    def __init__(self, path: Path, calibration: Calibration, rate: float | None = None, repeat: bool = False) -> None:
        self._path, self.calibration, self._repeat = path, calibration, repeat
        with MeasurementFile(path) as file:
            self.acquisition = file.acquisition
            self._rows(file)
        self.rate = rate or 1 / (self.acquisition.cycle * self.acquisition.num_averages)
        self.name = path.name

    def _rows(self, file: MeasurementFile) -> MeasuredRows:
        return MeasuredRows(file, self.calibration, chunk=CHUNK)

    def frames(self, stopped: threading.Event) -> Iterator[Incoming | MPIFastError]:
        """See `Source`."""
        clock, number = Clock(self.rate, stopped), 0
        while True:
            with MeasurementFile(self._path) as file:
                measured = self._rows(file)
                for rows in measured:
                    for one, flags in zip(rows, measured.flags.tolist(), strict=True):
                        if not clock.reached(number):
                            return
                        yield Incoming(one, number, time.time(), flags=flags)
                        number += 1
            if not self._repeat:
                return
