"""The frozen graph run by ONNX Runtime with its own CUDA graph, which is possible without this project.

``python bench/onnx_graph.py`` prints why it cannot run here, or nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import DeviceError

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
CAPTURE = {"device_id": "0", "enable_cuda_graph": "1"}


def why_not() -> str | None:
    """The reason why ONNX Runtime cannot use a GPU here, as far as known before trying; else None."""
    try:
        import onnxruntime
    except ImportError as error:
        return f"ONNX Runtime is not installed ({error})"
    if PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        return None
    return f"this ONNX Runtime ({onnxruntime.__version__}) has no {PROVIDERS['cuda']}: onnxruntime-gpu is needed"


class FixedGraph:
    """Runs a frozen graph for one frame at a time, with every tensor at a fixed address.

    Parameters
    ----------
    content : bytes
        The graph.
    place : str
        ``cuda`` for the first GPU, in a CUDA graph that ONNX Runtime captures; ``cpu`` for the same without one.

    Raises
    ------
    DeviceError
        If ONNX Runtime has no CUDA.
    """

    def __init__(self, content: bytes, place: str = "cuda") -> None:
        import onnxruntime

        self._session = _session(content, place)
        self._binding = self._session.io_binding()
        self._inputs, self._outputs = {}, []
        for one in self._session.get_inputs():
            zeros = np.zeros(_one(one.shape), np.float32)
            self._inputs[one.name] = onnxruntime.OrtValue.ortvalue_from_numpy(zeros, place, 0)
            self._binding.bind_ortvalue_input(one.name, self._inputs[one.name])
        for one in self._session.get_outputs():
            array = onnxruntime.OrtValue.ortvalue_from_shape_and_type(_one(one.shape), np.float32, place, 0)
            self._outputs.append(array)
            self._binding.bind_ortvalue_output(one.name, array)
        for _ in range(2):  # the first run allocates and captures, the second one replays
            self._session.run_with_iobinding(self._binding)

    def __call__(self, rows: NDArray[np.complex64]) -> list[NDArray[np.float32]]:
        """Selected rows (1, M) to the outputs of the graph, image and std first."""
        self._inputs["real"].update_inplace(np.ascontiguousarray(rows.real))
        self._inputs["imag"].update_inplace(np.ascontiguousarray(rows.imag))
        self._session.run_with_iobinding(self._binding)
        return [array.numpy() for array in self._outputs]


def _session(content: bytes, place: str) -> Any:
    """A session for one frame. So all shapes are constants, and nothing has to be computed on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("frames", 1)
    provider = PROVIDERS[place], CAPTURE if place == "cuda" else {}
    session = onnxruntime.InferenceSession(content, options, providers=[provider])
    if session.get_providers()[0] != provider[0]:  # it falls back without a message
        raise DeviceError("ONNX Runtime cannot use the GPU: a library that it needs is missing")
    return session


def _one(shape: list[int | str]) -> list[int]:
    """A shape for one frame."""
    return [size if isinstance(size, int) else 1 for size in shape]


if __name__ == "__main__":
    print(why_not() or "")
