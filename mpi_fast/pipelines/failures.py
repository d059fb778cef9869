"""Translation of errors of the GPU and its libraries to DeviceError."""

import contextlib
from collections.abc import Iterator

from mpi_fast.errors import DeviceError, MPIFastError

# Classes that C++ libraries raise for failures. RecursionError is derived from RuntimeError, but no library raises it.
FAILURES = (RuntimeError, OSError, ImportError, MemoryError, BufferError)
LIBRARIES = ("cupy", "cupy_backends", "cupyx", "torch", "triton", "cuda", "tensorrt", "tensorrt_rtx", "onnxruntime")


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """Raise errors of CUDA, cuDNN and other libraries as DeviceError, with a message of one line.

    Errors of this package are not changed, nor are those that only programming errors cause, such as TypeError.
    """
    try:
        yield
    except MPIFastError:
        raise
    except Exception as error:
        kind, text = type(error).__name__, str(error).splitlines()[0] if str(error) else "no message"
        if kind == "OutOfMemoryError" or isinstance(error, MemoryError) or "ALLOC_FAILED" in text:
            raise DeviceError(f"the GPU's memory does not suffice: {text}; try fewer frames at once") from error
        foreign = type(error).__module__.split(".")[0] in LIBRARIES
        if foreign or (isinstance(error, FAILURES) and not isinstance(error, RecursionError)):
            raise DeviceError(f"the GPU or one of its libraries failed ({kind}): {text}") from error
        raise
