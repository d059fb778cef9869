"""Live: one thread submits frames, a second fetches images, and a third reconstructs in between."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from mpi_fast.errors import InputError, LiveError, MPIFastError
from mpi_fast.flags import Flag
from mpi_fast.limits import LARGEST_BATCH
from mpi_fast.live.counters import Counters, Statistics
from mpi_fast.live.frames import Frame, LiveImage, Ready, Reconstructs
from mpi_fast.live.pace import Pace
from mpi_fast.live.preparation import Periods, Preparation, periods_of
from mpi_fast.live.prometheus import as_text
from mpi_fast.live.waiting import Line, WhenFull
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.verdict import Verdict

logger = logging.getLogger(__name__)


class Live:
    """Reconstructs frames as they arrive, in their order, without a time limit and in bounded memory.

    Parameters
    ----------
    reconstruct : Reconstructor
        Or another callable with a ``calibration``, see `frames.Reconstructs`. No other code should call it meanwhile.
    newest : bool
        Whether new frames and images replace the oldest waiting ones if processor or consumer is slow. Then the newest
        frames are reconstructed, within `latency` if possible, and dropped ones are counted. Otherwise nothing is
        dropped, and `full` determines what happens.
    average : int
        Number of frames of a sliding mean. The image of a frame is made from the mean of this frame and those with the
        ``average - 1`` preceding numbers; missing and flagged frames are left out.
    full : str
        Without `newest`, what `submit` does if `waiting` frames wait: ``block`` until there is room, or ``error``. If
        `waiting` images have not been fetched, reconstruction pauses, and frames wait as well.
    periods : str
        For frames with several periods: ``mean`` averages them; ``each`` makes an image of every period, and `average`
        counts periods.
    background_frames : int
        The mean of this many most recent frames marked empty is subtracted from all others.
    latency : float
        In s. With `newest`, a batch has no more frames than are likely to be reconstructed within this time.
    waiting : int
        Largest number of waiting frames, and of waiting images.
    batch : int
        Largest number of frames that are reconstructed at once.
    changed : callable
        Called after every change of the stream, by the thread that caused it.

    Raises
    ------
    InputError
        For parameters out of range.

    Notes
    -----
    A bad frame, or one for which `reconstruct` raises an error, gives a flagged image of NaN and affects no other
    frame. After an error in a batch, its frames are reconstructed one by one. The test whether frames fit the
    calibration (`verdict`) assumes independent frames, so with sliding means it is wrong more often.
    """

    def __init__(
        self,
        reconstruct: Reconstructs,
        newest: bool = True,
        average: int = 1,
        *,
        full: Literal["block", "error"] = "block",
        periods: Periods = "mean",
        background_frames: int = 32,
        latency: float = 0.05,
        waiting: int = 256,
        batch: int = 64,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        for name, value, most in (
            ("average", average, 10**6),
            ("background_frames", background_frames, 10**6),
            ("waiting", waiting, LARGEST_BATCH),
            ("batch", batch, LARGEST_BATCH),
        ):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise InputError(f"{name} {value}: expected a whole number from 1 to {most}")
        if not 0 < latency < float("inf"):
            raise InputError(f"latency {latency}: expected a positive number of seconds")
        if full not in ("block", "error"):
            raise InputError(f"full '{full}': expected block or error")
        if periods not in ("mean", "each"):
            raise InputError(f"periods '{periods}': expected mean or each")
        self._reconstruct, self._calibration = reconstruct, reconstruct.calibration
        self._newest, self._batch = newest, batch
        when_full: WhenFull = "newest" if newest else full
        self._frames: Line[Frame] = Line(waiting, when_full, changed)
        self._images: Line[LiveImage] = Line(waiting, "newest" if newest else "block", changed)
        self._waiting, self._number, self._submitting = waiting, 0, threading.Lock()
        self._counters, self._pace = Counters(), Pace(latency, batch)
        self._prepare = Preparation(self._calibration, average, periods, background_frames)
        self._busy, self._closing = 0, False
        self._fault: BaseException | None = None
        self._worker = threading.Thread(target=self._run, name="mpi-fast live", daemon=True)
        self._worker.start()

    # -- frames in ------------------------------------------------------------------------------------------------

    def submit(
        self,
        signals: Any,
        number: int | None = None,
        timestamp: float | None = None,
        *,
        empty: bool = False,
        flags: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Submit a frame, which is copied. Any thread may call this; use one at a time to keep the numbers in order.

        Parameters
        ----------
        signals : (C, V) real in V, (C, K) complex spectra or (M,) complex selected rows
            Optionally with an axis of periods in front. Do not subtract the background if you submit empty frames.
        number : int, optional
            Number of the frame; by default frames are counted from 0. Skipped numbers count as missing frames.
        timestamp : float, optional
            Time in s, from any clock; by default the system time. It is passed on unchanged.
        empty : bool
            Whether the scanner was empty. Then no image is made, and the frame enters the background.
        flags : int
            Flags that are already known; see `flags.Flag`.
        timeout : float, optional
            Longest waiting time in s, with ``full="block"``.

        Raises
        ------
        InputError, MismatchError
            For signals that do not fit the calibration.
        LiveError
            If too many frames wait, with ``full="error"`` or after `timeout`, or if the stream is closed.
        """
        frame = self._arrived(signals, number, timestamp, empty, flags)
        if not self._frames.put(frame, timeout):
            raise self._refused()
        self._counters.count_arrival(frame.number, frame.timestamp)

    def _arrived(self, signals: Any, number: int | None, timestamp: float | None, empty: bool, flags: int) -> Frame:
        arrived = time.monotonic()
        try:
            own = periods_of(signals, self._calibration)
        except MPIFastError as error:
            self.refuse(str(error))
            raise
        with self._submitting:
            number = self._number if number is None else int(number)
            self._number = number + 1
        return Frame(number, time.time() if timestamp is None else float(timestamp), own, empty, arrived, flags)

    def refuse(self, reason: str) -> None:
        """Count a frame that cannot be submitted, such as an unreadable message."""
        self._counters.fail(reason, to="refused")

    def _refused(self) -> LiveError:
        if self._fault is not None:
            return self._failure()
        if self._frames.closed:
            return LiveError("the live stream is closed: it takes no more frames")
        error = (
            f"{len(self._frames)} frames wait to be reconstructed and {len(self._images)} images to be fetched: "
            f"no room for another frame; at most {self._waiting} were expected to wait"
        )
        self.refuse(error)
        return LiveError(error)

    @property
    def has_room(self) -> bool:
        """Whether `submit` would return without waiting."""
        return not self._frames.blocks

    def _failure(self) -> LiveError:
        error = LiveError(f"the live stream has failed: {self._fault!r}")
        error.__cause__ = self._fault
        return error

    def finish(self) -> None:
        """End the input: iteration ends after the image of the last frame."""
        self._frames.close()

    def close(self) -> None:
        """Stop: waiting frames and images are dropped and counted. Returns when all work has ended; may be repeated."""
        self._closing = True
        self._frames.close(drop=True)
        self._images.close(drop=True)
        if threading.current_thread() is not self._worker:
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- images out -----------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> LiveImage | None:
        """Fetch the next image; returns None if there is none within `timeout` (s), or if the stream has ended.

        Raises
        ------
        LiveError
            If the stream itself has failed.
        """
        image = next(iter(self._images.take(1, timeout)), None)
        if image is not None:
            self._counters.add(to="delivered")
        elif self._fault is not None:
            raise self._failure()
        return image

    def __iter__(self) -> Iterator[LiveImage]:
        """Yield images until the stream is finished or closed."""
        while (image := self.get()) is not None:
            yield image

    @property
    def has_image(self) -> bool:
        """Whether `get` would return without waiting."""
        return len(self._images) > 0

    @property
    def ended(self) -> bool:
        """Whether all images have been fetched and no more will be made."""
        return self._images.closed and not self.has_image

    def statistics(self) -> Statistics:
        """The counts so far."""
        dropped = {"frames_dropped": self._frames.dropped, "images_dropped": self._images.dropped}
        return self._counters.snapshot(dropped | {"waiting": len(self._frames) + self._busy})

    def metrics(self) -> str:
        """The counts so far, in the text format of Prometheus."""
        return as_text(self.statistics)

    # -- between them, in a thread of its own ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while frames := self._frames.take(None if self._newest else self._batch):
                self._busy = len(frames)
                self._work(frames)
                self._busy = 0
        except BaseException as fault:  # the error would be lost otherwise
            logger.exception("the stream ends")
            self._fault = fault
        finally:
            self._frames.close(drop=True)
            self._images.close()

    def _work(self, frames: list[Frame]) -> None:
        """Make the images of waiting frames: of all, or of the newest ones that can be made in time."""
        prepared = self._prepare(frames)
        self._counters.add(sum(frame.empty for frame in frames), to="background")
        done = max(0, len(prepared) - self._pace.batch()) if self._newest else 0
        self._counters.add(done, to="frames_dropped")
        size = self._pace.batch() if self._newest else self._batch
        while done < len(prepared):
            if self._closing:
                self._counters.add(len(prepared) - done, to="frames_dropped")
                return
            batch = prepared[done : done + size]
            began = time.monotonic()
            images = self._images_of([ready for of_frame in batch for ready in of_frame])
            good = sum(any(not ready.flags & Flag.BAD for ready in of_frame) for of_frame in batch)
            self._pace.learn(good, time.monotonic() - began)
            self._counters.count_images(images)
            for image in images:
                if not self._images.put(image):
                    self._counters.add(to="images_dropped")
            done += len(batch)

    def _images_of(self, ready: Sequence[Ready]) -> list[LiveImage]:
        """Images in the same order, with NaN for bad frames, which are not passed to `reconstruct`."""
        good = [one for one in ready if not one.flags & Flag.BAD]
        self._pass_noise(good)
        made = iter(self._reconstructed(good))
        return [self._missing(one) if one.flags & Flag.BAD else next(made) for one in ready]

    def _reconstructed(self, ready: Sequence[Ready]) -> list[LiveImage]:
        if not ready:
            return []
        rows, flags = np.stack([one.rows for one in ready]), np.array([one.flags for one in ready], np.uint8)
        try:
            self._counters.add(to="batches")
            result = _complete(self._reconstruct(rows, flags), len(rows))
            return [LiveImage.of(one, result, index, _since(one)) for index, one in enumerate(ready)]
        except Exception as error:  # any error affects only this batch
            if len(ready) > 1:
                return [image for one in ready for image in self._reconstructed([one])]
            what = f"frame {ready[0].number}: {type(error).__name__}: {error}"
            logger.warning("no image of %s", what, exc_info=error)
            self._counters.fail(what, to="failed")
            return [self._missing(ready[0], what)]

    def _missing(self, ready: Ready, error: str | None = None) -> LiveImage:
        return LiveImage.missing(ready, self._calibration.grid, _since(ready), error)

    def _pass_noise(self, ready: Sequence[Ready]) -> None:
        """Pass the noise of the background to the verdict, for the mean with the fewest frames."""
        verdict = getattr(self._reconstruct, "verdict", None)
        if isinstance(verdict, Verdict) and ready and self._prepare.background.frames:
            found = self._prepare.background.noise_of_means(min(one.averaged for one in ready))
            known = max(found, verdict.noise, key=lambda noise: noise.frames)
            verdict.noise = replace(known, variance=found.variance)


def _complete(result: Reconstruction, frames: int) -> Reconstruction:
    if len(result) != frames:
        raise InputError(f"the reconstruction made {len(result)} images of {frames} frames")
    return result


def _since(ready: Ready) -> float:
    """Milliseconds since the frame arrived."""
    return 1e3 * (time.monotonic() - ready.arrived)
