"""Reconstructor: signals in, concentration images out, with their uncertainty.

    cal = Calibration.from_mdf("sm.mdf")
    rec = Reconstructor(cal)
    out = rec(signals)          # out.image, out.std: (frames, *grid) in the calibration's concentration unit
    for out in rec.stream(chunks): ...

Per frame: reduce the signals, find noise level and scale, and evaluate the network, whose posterior mean is the image
and whose second output is its uncertainty; then once more, shown its own image (`refinement`).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.cluster import Cluster
from mpi_fast.consistency import consistent
from mpi_fast.errors import InputError
from mpi_fast.flags import Flag, is_strict, of_samples
from mpi_fast.forks import renew_in_children
from mpi_fast.inspection import Inspection
from mpi_fast.kernels.launch import is_on_gpu
from mpi_fast.limits import EVALUATIONS, MOST_EVALUATIONS
from mpi_fast.machine import cores
from mpi_fast.ordered import Ordered
from mpi_fast.pending import Pending
from mpi_fast.pipelines import Frames, Pipeline, Sampling
from mpi_fast.pipelines.choose import choose, close, enqueue, warmup
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.verdict import Verdict
from mpi_fast.workers import Workers

Array = NDArray[np.float32]
logger = logging.getLogger(__name__)


class Reconstructor:
    """Reconstructs frames of one scanner.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    model : str or Path
        A bundle, or ``default`` for the one that comes with the package.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU if there is one with what it needs, and when it fails, the
        CPU with a warning.
    threads : int, optional
        Threads that the network may use on the CPU; default all.
    evaluations : int
        Of the network for each frame. The second, which is shown the image of the first, makes it better by
        some tenths of a decibel and doubles the time; see `refinement`.
    engine : str
        ``auto``; ``onnx``, ONNX Runtime on CPU or GPU; or, on a GPU, ``tensorrt``, an engine with the scanner inside,
        which the bundle must have for this calibration. On a GPU ``auto`` takes the network's own CUDA kernels,
        and ONNX Runtime where those are not to be had.
    precision : str
        Of TensorRT's engine: ``fp16``, ``tf32`` or ``fp32``.
    inspect : bool
        Measure how well the calibration explains each frame, and flag those that it does not. Of 400 rows it takes one
        core 0.9 ms for a single frame, and 0.25 ms a frame in batches of 64. Without it there is no misfit, and no
        frame is foreign.
    on_bad_frame : str
        ``mark``: a frame that cannot be reconstructed comes out as NaN, flagged; ``stop``: it is an error.

    Raises
    ------
    InputError
        For options out of range.
    ModelError
        For a broken bundle.
    """

    def __init__(
        self,
        calibration: Calibration,
        model: str | Path = "default",
        device: str = "auto",
        *,
        threads: int | None = None,
        evaluations: int = EVALUATIONS,
        engine: str = "auto",
        precision: str = "fp16",
        inspect: bool = True,
        on_bad_frame: str = "mark",
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads {threads}: expected 1 or more")
        if not 1 <= evaluations <= MOST_EVALUATIONS:
            raise InputError(f"evaluations {evaluations}: expected 1 to {MOST_EVALUATIONS}")
        bundle = Bundle.open(model)
        self.calibration, self.bundle, self.evaluations = calibration, bundle, evaluations
        network: dict[str, Any] = {"bundle": bundle, "engine": engine, "precision": precision}
        machine: dict[str, Any] = {"device": device, "threads": threads}
        self._choose = partial(choose, calibration, **network, **machine, evaluations=evaluations)
        self._made: tuple[Pipeline, str] | None = self._choose()
        logger.info("reconstructs on %s", self.runs_on)
        renew_in_children(self)
        self._inspect, self._strict = inspect, is_strict(on_bad_frame)
        self._inspection = Inspection(calibration, judge_images=model == "default")
        self._lock = threading.Lock()  # the pipeline's buffers serve one call at a time

    @property
    def runs_on(self) -> str:
        """What computes, and why it was chosen: for people."""
        pipeline, why = self._chosen()
        return f"{pipeline.name}: {why}"

    def _chosen(self) -> tuple[Pipeline, str]:
        """The pipeline, and why it was chosen; in a process that forked, one of its own."""
        if self._made is None:
            self._made = self._choose()
        return self._made

    def after_fork(self) -> object:
        """See `forks.Forking`."""
        old, self._made, self._lock = self._made, None, threading.Lock()
        return old

    def __getstate__(self) -> dict[str, Any]:
        """All but what only this process has. Another one chooses a pipeline of its own, on its first frames."""
        return {**vars(self), "_made": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())
        renew_in_children(self)

    @property
    def graphs(self) -> dict[int, dict[str, Any]]:
        """Whether frames are one CUDA graph, by how many there are at once; of pipelines on a GPU, see `Capture`."""
        return {frames: state.to_dict() for frames, state in getattr(self._chosen()[0], "graphs", {}).items()}

    @property
    def verdict(self) -> Verdict:
        """Whether the frames belong to the calibration: of all calls so far, or of the stream that runs."""
        return self._inspection.verdict

    def __call__(self, signals: NDArray[Any], flags: NDArray[np.uint8] | None = None) -> Reconstruction:
        """Reconstruct frames.

        Parameters
        ----------
        signals : (F, C, V) real volts, (F, C, K) complex spectra, or (F, M) complex selected rows
            Background-corrected, see `Calibration.select`. Of NumPy; or of CuPy, PyTorch and others that keep them on
            the GPU that reconstructs: then the images stay there, as CuPy arrays, NaN comes out as NaN, and nobody
            looks for bad frames. To go on without waiting for them, see `enqueue`.
        flags : (F,) uint8, optional
            What is known of the frames already; see `flags.Flag`.

        Raises
        ------
        InputError, MismatchError
            For shapes that do not fit the calibration, and with ``on_bad_frame="stop"`` for NaN or Inf.
        DeviceError
            When the GPU fails and was asked for.
        """
        if is_on_gpu(signals):
            return replace(self.enqueue(signals).wait(), flags=flags)
        began = time.perf_counter()
        with self._lock:
            rows, flags = self._prepared(signals, flags)
            frames, misfit, flags = self._judged(rows, flags, self._chosen()[0](rows))
        return frames.on(self.calibration.grid, began, misfit, flags)

    def enqueue(self, signals: Any, *, out: Reconstruction | None = None, stream: Any = None) -> Pending:
        """Begin to reconstruct frames that are on the GPU, by its own kernels, and return.

        Calls are done in their order. The first of a number of frames waits, see `warmup`. Selected rows as complex64
        and ``out`` need no memory.

        Parameters
        ----------
        signals : array
            As for `__call__`, on the GPU.
        out : Reconstruction, optional
            Written instead of new arrays: of an earlier call, or made of your own, float32 and C-contiguous.
        stream : optional
            CUDA stream of CuPy or PyTorch, or its address. Work begins after what is on it; what is enqueued on it from
            then on, such as the next signals, begins when the images are there. Without it, what is on the current
            stream of the signals' library is waited for, and signals must stay as they are until `Pending.done`.

        Raises
        ------
        InputError, MismatchError, DeviceError
            As `__call__`; also for arrays that are not on the GPU, and where no kernels of its own run.
        """
        began = time.perf_counter()
        with self._lock:
            frames, event = enqueue(self._chosen()[0], signals, out, stream)
        return Pending(frames.on(self.calibration.grid, began) if out is None else out, event, signals, began)

    def warmup(self, *frames: int) -> None:
        """Reconstruct so many empty frames at once, for each number, so that no later call waits for a first one.

        On a GPU that compiles kernels, allocates buffers and captures the graphs of these numbers of frames.
        """
        for count in frames:
            with self._lock:
                warmup(self._chosen()[0], np.zeros((count, self.calibration.num_rows), np.complex64))

    def close(self) -> None:
        """Give back the GPU's memory. A later call begins anew."""
        with self._lock:
            made, self._made = self._made, None
            if made is not None:
                close(made[0])

    def samples(
        self,
        signals: NDArray[Any],
        count: int = Sampling.samples,
        *,
        sampler: str = "dpm",
        steps: int = Sampling.steps,
        sde: str = "ve",
        seed: int = 0,
    ) -> Array:
        """Draw images that explain the signals, each as probable as the network finds it.

        Their mean is close to the image of a call, their standard deviation to its std; they serve whatever no mean
        tells, such as the probability that a vessel is open. Each costs ``steps`` evaluations of the network.

        Parameters
        ----------
        signals : array
            Of F frames, see `__call__`.
        count : int
            Samples of each frame.
        sampler, sde : str
            ``dpm``, ``heun``, ``euler-maruyama`` or ``predictor-corrector``; for the last two, of what process:
            ``ve``, ``vp`` or ``sub-vp``.
        steps : int
            Of the sampler; of ``dpm`` more than the default change mean and deviation by less than the samples' noise.
        seed : int
            Of the noise, which is the same for every frame.

        Returns
        -------
        (F, count, *grid) float32, in the unit of the calibration's delta sample.

        Raises
        ------
        InputError, MismatchError
            For options out of range, and signals that do not fit or are not finite.
        """
        draw = getattr(pipeline := self._chosen()[0], "samples", None)
        if draw is None:
            raise InputError(f"samples are not drawn by {pipeline.name}: expected engine='onnx', or device='cpu'")
        sampling = Sampling(count, steps, seed, sampler, sde)
        with self._lock:
            drawn: Array = draw(self.calibration.rows(np.asarray(signals)), sampling)
        return drawn.reshape(-1, count, *self.calibration.grid)

    def _prepared(
        self, signals: NDArray[Any], known: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.complex64], NDArray[np.uint8]]:
        """Selected rows of frames on the host, zero for the bad ones, and flags."""
        signals = np.asarray(signals)
        rows = self.calibration.rows(signals) if self._strict else self.calibration.select(signals)
        rows = rows.copy() if rows is signals else rows
        flags = self._inspection.check_signals(rows)
        if signals.ndim == 3 and signals.dtype.kind in "fiu":
            flags |= of_samples(signals, np.asarray(self.calibration.selection.any(axis=1)))
        if known is not None:
            flags |= known
        bad = (flags & np.uint8(Flag.BAD)) != 0
        if self._strict and bad.any():
            raise InputError(f"signals: frame {bad.argmax()} holds numbers too large to compute with")
        return rows, flags

    def _judged(
        self, rows: NDArray[np.complex64], flags: NDArray[np.uint8], frames: Frames
    ) -> tuple[Frames, Array | None, NDArray[np.uint8]]:
        """Images with NaN for the bad ones; misfit and flags."""
        misfit, bad = None, (flags & np.uint8(Flag.BAD)) != 0
        if self._inspect:
            found, flags = self._inspection.check_images(rows, frames.image, flags)
            misfit = np.stack([found.outside, found.receiver, found.image], axis=1).astype(np.float32)
            misfit[bad] = np.nan
        frames = frames._replace(image=consistent(self.calibration, rows, frames.image, frames.std))
        for values in frames:
            values[bad] = np.nan
        return frames, misfit, flags

    def stream(
        self,
        frames: Iterable[NDArray[Any]],
        verdict: Verdict | None = None,
        workers: int = 1,
        cluster: str | None = None,
    ) -> Iterator[Reconstruction]:
        """Reconstruct chunk after chunk of frames, each as `__call__` takes them, in constant memory.

        The verdict begins anew, or goes on with the one that is given, of the frames before these. What yields the
        chunks may know more, as `pairing.MeasuredRows` does: ``noise``, what background frames show
        (`misfit.RowNoise`), and ``flags`` of the chunk that it yielded last.

        With several ``workers``, that many processes compute the images, each with the ``threads`` of this one; chunks
        are then asked for before the images of earlier ones are yielded. What comes out is the same. So it is with a
        ``cluster``, where actors of Ray do: the address of one, or ``auto``; see `cluster.Cluster`.

        Raises
        ------
        InputError
            For several workers and a cluster.
        """
        if workers > 1 and cluster is not None:
            raise InputError("workers and cluster: expected one of the two")
        self._inspection = self._inspection.restarted(getattr(frames, "noise", None))
        if verdict is not None:
            self._inspection.verdict = verdict
        if workers > 1 or cluster is not None:
            pool = Workers(self._choose, workers) if cluster is None else self._cluster(cluster)
            yield from self._stream_from(pool, frames)
            return
        for signals in frames:
            yield self(signals, getattr(frames, "flags", None))

    def _cluster(self, address: str) -> Cluster:
        options = self._choose.keywords
        make = partial(self._choose, bundle=self.bundle.in_memory())
        return Cluster(make, address, options["threads"] or cores(), options["device"])

    def _stream_from(self, workers: Ordered, frames: Iterable[NDArray[Any]]) -> Iterator[Reconstruction]:
        """The images that others compute."""
        waiting: deque[tuple[NDArray[np.complex64], NDArray[np.uint8]]] = deque()

        def prepared() -> Iterator[NDArray[np.complex64]]:
            for signals in frames:
                waiting.append(self._prepared(signals, getattr(frames, "flags", None)))
                yield waiting[-1][0]

        began = time.perf_counter()
        with workers as pool:
            for images in pool.map(prepared()):
                judged, misfit, flags = self._judged(*waiting.popleft(), images)
                yield judged.on(self.calibration.grid, began, misfit, flags)
                began = time.perf_counter()
