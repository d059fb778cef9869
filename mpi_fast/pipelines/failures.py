"""What goes wrong on a GPU, told from what is wrong with a program."""

import contextlib
from collections.abc import Iterator

from mpi_fast.errors import DeviceError, MPIFastError

# C++ libraries have no other class for what fails below them; a RecursionError is one of these, and no library's.
FAILURES = (RuntimeError, OSError, ImportError, MemoryError, BufferError)
LIBRARIES = ("cupy", "cupy_backends", "cupyx", "torch", "triton", "cuda", "tensorrt", "tensorrt_rtx", "onnxruntime")


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """What CUDA, cuDNN and other libraries raise, as DeviceError with one clear message.

    Errors of this package pass, and so do those that only a mistake in a program raises, such as TypeError.
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
