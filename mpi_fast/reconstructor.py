"""Reconstructor: turns signals into concentration images with their uncertainty.

    cal = Calibration.from_mdf("sm.mdf")
    rec = Reconstructor(cal)
    out = rec(signals)          # out.image, out.std: (frames, *grid) in the calibration's concentration unit
    for out in rec.stream(chunks): ...

For each frame, the signals are reduced, noise level and scale are estimated, and the network gives the posterior mean,
which is the image, and the uncertainty. A second evaluation then refines this image (`refinement`).
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

from mpi_fast.blas import single_blas_thread
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.checked import checked_array, checked_count
from mpi_fast.cluster import Cluster
from mpi_fast.consistency import consistent
from mpi_fast.errors import InputError
from mpi_fast.flags import Flag, is_strict, of_samples
from mpi_fast.forks import renew_in_children
from mpi_fast.inspection import Inspection
from mpi_fast.kernels.launch import is_on_gpu
from mpi_fast.limits import EVALUATIONS, LARGEST_BATCH, MOST_EVALUATIONS, MOST_THREADS
from mpi_fast.machine import cores
from mpi_fast.ordered import Ordered
from mpi_fast.pending import Pending
from mpi_fast.pipelines import Frames, Pipeline, Sampling
from mpi_fast.pipelines.capabilities import close, enqueue, warmup
from mpi_fast.pipelines.choose import choose
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
        Calibration of the scanner.
    model : str or Path
        A bundle, or ``default`` for the one of the package.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` uses a GPU if there is one with all required software. If that GPU
        fails, the CPU continues, with a warning, unless a TensorRT engine was requested.
    threads : int, optional
        Threads of the network on the CPU; by default all.
    evaluations : int
        Network evaluations for each frame. The second one takes the image of the first as an input. It improves the
        image by some tenths of a decibel and doubles the time; see `refinement`.
    engine : str
        ``onnx``: ONNX Runtime on CPU or GPU; ``tensorrt``: on a GPU, an engine of the bundle for this scanner;
        ``auto``: on a GPU the network's own CUDA kernels, and ONNX Runtime where these cannot run.
    precision : str
        Precision of the TensorRT engine: ``fp16``, ``tf32`` or ``fp32``.
    inspect : bool
        Measure how well the calibration explains each frame, and flag frames that do not fit. With 400 rows this takes
        one core 0.7 ms for a single frame, and 0.25 ms a frame in batches of 64. Without it, misfit is None, and no
        frame is flagged as foreign.
    on_bad_frame : str
        ``mark``: a frame that cannot be reconstructed gives an image of NaN and a flag; ``stop``: it is an error.

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
        threads = None if threads is None else checked_count("threads", threads, 1, MOST_THREADS)
        evaluations = checked_count("evaluations", evaluations, 1, MOST_EVALUATIONS)
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
        """Description of the device and engine in use, and why they were chosen."""
        pipeline, why = self._chosen()
        return f"{pipeline.name}: {why}"

    def _chosen(self) -> tuple[Pipeline, str]:
        """The pipeline, and why it was chosen. A forked process makes its own pipeline."""
        if self._made is None:
            self._made = self._choose()
        return self._made

    def after_fork(self) -> object:
        """See `forks.Forking`."""
        old, self._made, self._lock = self._made, None, threading.Lock()
        return old

    def __getstate__(self) -> dict[str, Any]:
        """Everything except objects of this process. Another process chooses its pipeline at its first frames."""
        return {**vars(self), "_made": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())
        renew_in_children(self)

    @property
    def graphs(self) -> dict[int, dict[str, Any]]:
        """State of the CUDA graph for each number of frames at once, on a GPU; see `Capture`."""
        return {frames: state.to_dict() for frames, state in getattr(self._chosen()[0], "graphs", {}).items()}

    @property
    def verdict(self) -> Verdict:
        """Whether the frames fit the calibration, judged by all calls so far or by the current stream."""
        return self._inspection.verdict

    def __call__(self, signals: NDArray[Any], flags: NDArray[np.uint8] | None = None) -> Reconstruction:
        """Reconstruct frames.

        Parameters
        ----------
        signals : (F, C, V) real volts, (F, C, K) complex spectra, or (F, M) complex selected rows
            Background-corrected, see `Calibration.select`: a NumPy array, or an array of CuPy, PyTorch and others on
            the GPU that reconstructs. Then the images are CuPy arrays on that GPU, NaN gives NaN, and frames are not
            checked. To continue without waiting for the images, see `enqueue`.
        flags : (F,) uint8, optional
            Flags that are already known for the frames; see `flags.Flag`. Frames with masked values are flagged as bad.

        Raises
        ------
        InputError, MismatchError
            For shapes that do not fit the calibration, and with ``on_bad_frame="stop"`` for NaN or Inf.
        DeviceError
            If the GPU was requested and fails.
        """
        if is_on_gpu(signals):
            return replace(self.enqueue(signals).wait(), flags=flags)
        began = time.perf_counter()
        with self._lock, single_blas_thread():
            rows, flags = self._prepared(signals, flags)
            frames, misfit, flags = self._judged(rows, flags, self._chosen()[0](rows))
        return frames.on(self.calibration.grid, began, misfit, flags)

    def enqueue(self, signals: Any, *, out: Reconstruction | None = None, stream: Any = None) -> Pending:
        """Start to reconstruct frames on the GPU by the network's own kernels, and return at once.

        Calls are executed in order. The first call with a new number of frames takes longer, see `warmup`. With
        selected rows as complex64 and ``out``, no memory is allocated.

        Parameters
        ----------
        signals : array
            As for `__call__`, on the GPU.
        out : Reconstruction, optional
            Result to overwrite: one of an earlier call, or your own float32, C-contiguous arrays.
        stream : optional
            CUDA stream of CuPy or PyTorch, or its address. The work begins after earlier work on this stream, and later
            work on it, such as copying the next signals, begins when the images are complete. Without it, the call
            waits for the current stream of the signals' library, and the signals must not change until `Pending.done`.

        Raises
        ------
        InputError, MismatchError, DeviceError
            As `__call__`; also for arrays that are not on the GPU, and if the network's own kernels are not in use.
        """
        began = time.perf_counter()
        with self._lock:
            frames, event = enqueue(self._chosen()[0], signals, out, stream)
        return Pending(frames.on(self.calibration.grid, began) if out is None else out, event, signals, began)

    def warmup(self, *frames: int) -> None:
        """Reconstruct each of these numbers of empty frames at once, so that no later call with them takes longer.

        On a GPU this compiles kernels, allocates buffers and captures the CUDA graphs.
        """
        for count in frames:
            shape = checked_count("frames", count, 0, LARGEST_BATCH), self.calibration.num_rows
            with self._lock:
                warmup(self._chosen()[0], np.zeros(shape, np.complex64))

    def close(self) -> None:
        """Free the memory of the GPU. A later call allocates it again."""
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
        """Draw posterior samples: images that explain the signals, with the probability that the network gives them.

        Their mean is close to the image of a call, and their standard deviation to its std. They answer questions that
        a mean cannot, such as the probability that a vessel is open. Each takes ``steps`` network evaluations.

        Parameters
        ----------
        signals : array
            Signals of F frames, see `__call__`.
        count : int
            Samples of each frame.
        sampler, sde : str
            ``dpm``, ``heun``, ``euler-maruyama`` or ``predictor-corrector``; for the last two, ``sde`` selects the
            process, ``ve``, ``vp`` or ``sub-vp``.
        steps : int
            Steps of the sampler. With ``dpm``, more than the default change mean and deviation insignificantly.
        seed : int
            Seed of the noise, which is the same for every frame.

        Returns
        -------
        (F, count, *grid) float32, in the unit of the calibration's delta sample.

        Raises
        ------
        InputError, MismatchError
            For options out of range, and for signals that do not fit or are not finite.
        """
        draw = getattr(pipeline := self._chosen()[0], "samples", None)
        if draw is None:
            raise InputError(f"samples are not drawn by {pipeline.name}: expected engine='onnx', or device='cpu'")
        with self._lock:
            drawn: Array = draw(self.calibration.rows(signals), Sampling(count, steps, seed, sampler, sde))
        return drawn.reshape(-1, count, *self.calibration.grid)

    def _prepared(
        self, signals: NDArray[Any], known: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.complex64], NDArray[np.uint8]]:
        """Selected rows of frames on the host, with zeros for bad frames, and flags."""
        signals = checked_array("signals", signals, kinds=None)
        rows = self.calibration.rows(signals) if self._strict else self.calibration.select(signals)
        rows = rows.copy() if rows is signals else rows
        flags = self._inspection.check_signals(rows)
        if signals.ndim == 3 and signals.dtype.kind in "fiu":
            flags |= of_samples(signals, np.asarray(self.calibration.selection.any(axis=1)))
        if known is not None:
            flags |= checked_array("flags", known, flags.shape, "u").astype(np.uint8)
        bad = (flags & np.uint8(Flag.BAD)) != 0
        if self._strict and bad.any():
            raise InputError(f"signals: frame {bad.argmax()} holds numbers too large to compute with")
        return rows, flags

    def _judged(
        self, rows: NDArray[np.complex64], flags: NDArray[np.uint8], frames: Frames
    ) -> tuple[Frames, Array | None, NDArray[np.uint8]]:
        """Images, with NaN for bad frames; misfit and flags."""
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
        """Reconstruct chunks of frames one after the other, each as `__call__` takes them, in constant memory.

        The verdict begins anew, or continues with ``verdict``, that of earlier frames. The iterable may have two more
        attributes, as `pairing.MeasuredRows` has: ``noise``, the noise of its background frames (`misfit.RowNoise`),
        and ``flags`` of the chunk that it yielded last.

        With several ``workers``, that many processes compute the images, each with ``threads`` threads. Chunks are then
        read before the images of earlier chunks are yielded; the result is the same. With ``cluster``, the address of
        a Ray cluster or ``auto``, actors of Ray compute the images; see `cluster.Cluster`.

        Raises
        ------
        InputError
            If both several workers and a cluster are given.
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
