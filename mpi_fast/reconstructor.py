"""Reconstructor: signals in, concentration images out, with their uncertainty.

    cal = Calibration.from_mdf("sm.mdf")
    rec = Reconstructor(cal)
    out = rec(signals)          # out.image, out.std: (frames, ny, nx) in the calibration's concentration unit
    for out in rec.stream(chunks): ...

Per frame: reduce the signals, find noise level and scale, draw posterior samples for the uncertainty, and from their
mean find the image that prior and signals agree on.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.consensus import STEPS as CONSENSUS
from mpi_fast.denoiser import STRENGTH, Guidance
from mpi_fast.engines import Engine
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.pipelines import Sampling, default_steps
from mpi_fast.pipelines.choose import choose, on_device

Array = NDArray[np.float32]
DLPACK_CUDA = 2  # kDLCUDA of the DLPack standard


@dataclass(frozen=True)
class Reconstruction:
    """Images of F frames.

    Attributes
    ----------
    image : (F, ny, nx) float32
        The concentration, not negative, in the unit of the calibration's delta sample. Zero for
        frames whose signals noise alone explains (`guidance.signal_presence`).
    std : (F, ny, nx) float32
        Uncertainty, in the image's unit: ``image +- 1.96 std`` is meant to hold the truth in 95 % of the voxels;
        narrower intervals hold it more often than they say. It follows from how far the posterior samples are from the
        image, how bright that is and how noisy the signals (`consensus.settle`). Without consensus it is the samples'
        standard deviation, zero for a single one.
    snr_db : (F,) float32
        Signal-to-noise ratio found, ``20 log10(||signal|| / ||noise||)`` over the whitened rows.
    noise_floor : (F,) float32
        Root-mean-square over the voxels of what the frame's noise alone would leave in a linear estimate.
    elapsed_ms : float
        Wall-clock time of the call per frame.
    """

    image: Array
    std: Array
    snr_db: Array
    noise_floor: Array
    elapsed_ms: float

    def __len__(self) -> int:
        return len(self.image)


class Reconstructor:
    """Reconstructs frames of one scanner.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    model : str or Path
        A bundle, or ``default``.
    samples : int
        Posterior samples per frame: their mean is where consensus starts, and the farther they are from the image it
        finds, the more uncertain that is.
    steps : int, optional
        Steps of the sampler; default: the sampler's own (4 for ``dpm``). The start costs one more evaluation.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU if there is one with what it needs, and when it fails, the
        CPU with a warning.
    seed : int
        Of the samplers' noise. Every frame is sampled from the same noise: the image of a frame does not depend on what
        is reconstructed with it, and a still object gives a still picture.
    sampler : str
        ``dpm``, ``heun``, ``euler-maruyama`` or ``predictor-corrector``.
    sde : str
        ``ve``, ``vp`` or ``sub-vp``; the deterministic samplers run on the noise levels of ``ve`` whatever it is.
    guidance : str
        ``proximal``, ``gradient`` or ``none``: see `denoiser.ConditionedDenoiser`.
    strength : float
        Of the guidance.
    consensus : int
        Steps from the mean of the samples towards what prior and signals agree on, see `consensus.agree`; 0 for the
        mean itself.
    threads : int, optional
        Threads that the network may use on the CPU; default all.
    engine : str or Engine
        What evaluates the network: ``auto``, ``onnx``, ``torch``, or an object of `engines`; on a GPU also
        ``tensorrt``, ``tensorrt-frame`` (the whole frame as one engine) and ``torch-compiled`` (minutes to start). On
        the CPU, ``auto`` and ``onnx`` run the default sampler and guidance as one graph where the bundle has one for
        these steps and samples; that changes the time it takes, not the images.
    precision : str
        Of the network's convolutions on a GPU: ``fp16`` or ``fp32``, with PyTorch also ``bf16`` or ``tf32``.

    Attributes
    ----------
    sampling : Sampling
        Samples, steps, seed, sampler and guidance.

    Raises
    ------
    InputError
        For options out of range.
    MismatchError
        For a model of another grid than the calibration's.
    ModelError
        For a broken bundle.
    """

    def __init__(
        self,
        calibration: Calibration,
        model: str | Path = "default",
        samples: int = 8,
        steps: int | None = None,
        device: str = "auto",
        seed: int = 0,
        *,
        sampler: str = "dpm",
        sde: str = "ve",
        guidance: Guidance = "proximal",
        strength: float = STRENGTH,
        consensus: int = CONSENSUS,
        threads: int | None = None,
        engine: str | Engine = "auto",
        precision: str = "fp16",
    ) -> None:
        sampling = Sampling(
            samples,
            default_steps(sampler) if steps is None else steps,
            seed,
            sampler,
            sde,
            guidance,
            strength,
            consensus,
        )
        if threads is not None and threads < 1:
            raise InputError(f"threads {threads}: expected 1 or more")
        bundle = Bundle.open(model)
        if bundle.grid != calibration.grid:
            raise MismatchError(
                f"{bundle.path}: a model for {bundle.grid[0]} x {bundle.grid[1]} voxels, but the calibration has "
                f"{calibration.grid[0]} x {calibration.grid[1]}; train one with mpi-fast train --grid"
            )
        self.calibration, self.bundle, self.sampling = calibration, bundle, sampling
        self._pipeline, why = choose(calibration, bundle, sampling, device, engine, precision, threads)
        self._why = why
        self._lock = threading.Lock()  # the pipeline's buffers serve one call at a time

    @property
    def runs_on(self) -> str:
        """What computes, and why it was chosen: for people."""
        return f"{self._pipeline.name}: {self._why}"

    def __call__(self, signals: NDArray[Any]) -> Reconstruction:
        """Reconstruct frames.

        Parameters
        ----------
        signals : (F, C, V) real volts, (F, C, K) complex spectra, or (F, M) complex selected rows
            Background-corrected, see `Calibration.rows`. Of NumPy; or of CuPy, PyTorch and others that keep them on the
            GPU that reconstructs: then the images stay there, as CuPy arrays, and NaN comes out as NaN.

        Raises
        ------
        InputError, MismatchError
            For NaN or Inf, and shapes that do not fit the calibration.
        DeviceError
            When the GPU fails and was asked for.
        """
        began = time.perf_counter()
        with self._lock:
            if is_on_gpu(signals):
                frames = on_device(self._pipeline, signals)
            else:
                frames = self._pipeline(self.calibration.rows(signals))
        count, grid = len(frames.image), self.calibration.grid
        image, std = (array.reshape(count, *grid) for array in (frames.image, frames.std))
        elapsed = 1e3 * (time.perf_counter() - began) / max(count, 1)
        return Reconstruction(image, std, frames.snr_db, frames.noise_floor, elapsed)

    def stream(self, frames: Iterable[NDArray[Any]]) -> Iterator[Reconstruction]:
        """Reconstruct chunk after chunk of frames, each as `__call__` takes them, in constant memory."""
        for signals in frames:
            yield self(signals)


def is_on_gpu(array: Any) -> bool:
    """Whether an array of any library is in the memory of a CUDA device."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == DLPACK_CUDA
