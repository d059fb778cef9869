"""ONNX Runtime, with every input and output bound to a fixed buffer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.engines.external_data import has_external_data
from mpi_fast.errors import DeviceError, ModelError
from mpi_fast.optional import optional

Array = NDArray[np.float32]
CUDA = "CUDAExecutionProvider"


class BoundSession:
    """A session whose inputs and outputs are fixed NumPy buffers."""

    def __init__(self, session: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self._session, self._binding = session, session.io_binding()
        self._buffers = inputs, outputs  # ONNX Runtime keeps only their addresses
        for bind, buffers in ((self._binding.bind_input, inputs), (self._binding.bind_output, outputs)):
            for name, buffer in buffers.items():
                try:
                    bind(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
                except Exception as error:  # see below
                    raise ModelError(f"the network has no {name} of {buffer.shape}: {error}") from error

    def __call__(self) -> None:
        """Run on the contents of the buffers; raises ModelError if the model does not fit, DeviceError for a GPU."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's errors have no common base class of their own
            kind = DeviceError if self._session.get_providers()[0] == CUDA else ModelError
            raise kind(f"ONNX Runtime fails to run the network: {error}") from error


def session(content: bytes, title: str, threads: int | None, gpu: int | None = None) -> Any:
    """A session on a model, which error messages call ``title``, on the CPU or on GPU number ``gpu``.

    Raises
    ------
    ModelError
        If it has parts in other files, or if ONNX Runtime refuses it.
    MPIFastError
        If ONNX Runtime is not installed.
    DeviceError
        If ONNX Runtime has no CUDA, or not for this GPU.
    """
    try:
        if has_external_data(content):
            raise ModelError(f"{title}: has weights in other files, which is not followed: export it as one file")
    except ValueError as error:
        raise ModelError(f"{title}: not an ONNX model: {error}") from error
    with optional("ONNX Runtime is not installed: pip install 'mpi-fast[cpu]'"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Threads may spin during an evaluation, but not after it, because they would block cores for other work.
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
    if opened.get_providers()[0] != provider:  # ONNX Runtime falls back silently
        raise DeviceError(f"ONNX Runtime cannot use CUDA device {gpu}: its libraries or the GPU are missing")
    return opened
