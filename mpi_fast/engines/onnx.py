"""ONNX Runtime, with every input and output bound to a fixed buffer."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.engines.external_data import has_external_data
from mpi_fast.errors import DeviceError, MismatchError, ModelError, MPIFastError
from mpi_fast.guidance import CONDITION_CHANNELS

if TYPE_CHECKING:
    from mpi_fast.bundle import Bundle

Array = NDArray[np.float32]
CUDA = "CUDAExecutionProvider"
SCORE = {"fp32": "score.onnx", "fp16": "score.fp16.onnx"}


class OnnxEngine:
    """The encoder and the denoiser of a bundle as two ONNX Runtime sessions.

    Parameters
    ----------
    bundle : Bundle
        An opened bundle.
    threads : int, optional
        Threads that one evaluation may use; default: all cores that this process may run on.
    precision : str
        ``fp32``, or ``fp16`` for the denoiser in half precision, if the bundle has it.
    gpu : int, optional
        CUDA device to run on instead of the CPU; tensors are copied there and back for each evaluation.

    Raises
    ------
    MPIFastError
        When ONNX Runtime is not installed.
    DeviceError
        When it has no CUDA for the GPU.
    ModelError
        When it refuses the model.
    """

    name = "onnx"

    def __init__(
        self, bundle: "Bundle", threads: int | None = None, precision: str = "fp32", gpu: int | None = None
    ) -> None:
        self.grid = bundle.grid
        self._encoder = open_session(bundle, "encoder.onnx", threads, gpu)
        self._denoiser = open_session(bundle, SCORE[precision], threads, gpu)
        features = self._encoder.get_outputs()[0].shape
        if len(features) != 4 or not isinstance(features[1], int):
            raise ModelError(
                f"{bundle.path}/encoder.onnx: gives {features}, expected frames of a fixed number of features"
            )
        self.features = features[1]

    def bind(self, frames: int, samples: int) -> "OnnxEvaluator":
        """Buffers and bindings for ``frames`` frames with ``samples`` samples each."""
        return OnnxEvaluator(self, frames, samples)


class OnnxEvaluator:
    """See `denoiser.Evaluator`; nothing is allocated after construction."""

    def __init__(self, engine: OnnxEngine, frames: int, samples: int) -> None:
        batch, grid = frames * samples, engine.grid
        self.condition: Array = np.zeros((frames, CONDITION_CHANNELS, *grid), dtype=np.float32)
        self.image: Array = np.zeros((batch, 3, *grid), dtype=np.float32)
        self.sigma: Array = np.ones(batch, dtype=np.float32)
        self._encoded: Array = np.zeros((frames, engine.features, *grid), dtype=np.float32)
        self._features: Array = np.zeros((frames, samples, engine.features, *grid), dtype=np.float32)
        self._denoised: Array = np.zeros((batch, 1, *grid), dtype=np.float32)
        self._encode = BoundSession(engine._encoder, {"condition": self.condition}, {"features": self._encoded})
        self._denoise = BoundSession(
            engine._denoiser,
            {"image": self.image, "sigma": self.sigma, "features": self._features.reshape(batch, -1, *grid)},
            {"denoised": self._denoised},
        )

    def encode(self) -> None:
        """Run the encoder on ``condition``; every sample of a frame gets its features."""
        self._encode()
        self._features[:] = self._encoded[:, None]

    def denoise(self) -> Array:
        """Run the denoiser on ``image`` and ``sigma``."""
        self._denoise()
        return self._denoised


class BoundSession:
    """A session whose inputs and outputs are fixed NumPy buffers."""

    def __init__(self, session: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self._session, self._binding = session, session.io_binding()
        self._buffers = inputs, outputs  # ONNX Runtime keeps only their addresses
        for bind, buffers in ((self._binding.bind_input, inputs), (self._binding.bind_output, outputs)):
            for name, buffer in buffers.items():
                try:
                    bind(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
                except Exception as error:  # as below
                    raise ModelError(f"the network has no {name} of {buffer.shape}: {error}") from error

    def __call__(self) -> None:
        """Run on what the buffers hold; ModelError where the model is not for them, DeviceError of a GPU."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's errors have no common base class of their own
            kind = DeviceError if self._session.get_providers()[0] == CUDA else ModelError
            raise kind(f"ONNX Runtime fails to run the network: {error}") from error


def open_session(bundle: "Bundle", name: str, threads: int | None, gpu: int | None = None) -> Any:
    """A session on a file of a bundle, on the CPU or on GPU number ``gpu``; see `session` for what it raises."""
    opened = session(bundle.read(name), f"{bundle.path}/{name}", threads, gpu)
    shape = tuple(opened.get_outputs()[0].shape[-2:])
    if shape != bundle.grid:
        raise MismatchError(f"{bundle.path}/{name}: for a grid {shape}, the manifest says {bundle.grid}")
    return opened


def session(content: bytes, title: str, threads: int | None, gpu: int | None = None) -> Any:
    """A session on a model, which error messages call ``title``, on the CPU or on GPU number ``gpu``.

    Raises
    ------
    ModelError
        When it has parts in other files, or ONNX Runtime refuses it.
    DeviceError
        When ONNX Runtime has no CUDA, or not for this GPU; see `OnnxEngine` for the others.
    """
    try:
        if has_external_data(content):
            raise ModelError(f"{title}: has weights in other files, which is not followed: export it as one file")
    except ValueError as error:
        raise ModelError(f"{title}: not an ONNX model: {error}") from error
    try:
        import onnxruntime
    except ImportError as error:
        raise MPIFastError("ONNX Runtime is not installed: pip install 'mpi-fast[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Threads may spin within an evaluation, but not after it: they would take the cores from what runs in between.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = "CPUExecutionProvider" if gpu is None else CUDA
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError("this ONNX Runtime has no CUDA: pip install 'mpi-fast[gpu]', which replaces onnxruntime")
    try:
        opened = onnxruntime.InferenceSession(
            content, options, providers=[provider], provider_options=[{"device_id": gpu or 0}]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base class of their own
        raise ModelError(f"{title}: ONNX Runtime refuses it: {error}") from error
    if opened.get_providers()[0] != provider:  # it falls back without a word
        raise DeviceError(f"ONNX Runtime cannot use CUDA device {gpu}: its libraries or the GPU are missing")
    return opened
