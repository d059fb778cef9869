"""A substitute for TensorRT's runtime, for the substitute for CUDA in fake_cuda.py.

An engine is an ONNX file after a header. It is run by ONNX Runtime on the arrays at the bound addresses, on a stream of
fake_cuda.py. So the numbers are only right if addresses, shapes, profiles, contexts, streams and devices are. The
classes have the names of TensorRT's, and only public attributes that these have, too; a test compares them with the
real bindings.
"""

import ctypes
import enum
import types

import numpy as np
import onnxruntime
from fake_cuda import Array

HEADER = b"engine:"
NO_MEMORY = "Error Code 2: OutOfMemory (Requested size was 9 bytes; cudaError 2: out of memory)"


class Capabilities(enum.Enum):
    """Names as in ComputeCapability."""

    SM75 = 75
    SM89 = 89
    SM120 = 120


class Severity(enum.Enum):
    ERROR = 1


def at(address, shape, dtype):
    """The array at an address."""
    memory = (ctypes.c_char * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def fake_tensorrt(name, version, *, portable=True, context_fails=False, invalid=0):
    """A substitute for a package; ``calls`` lists the calls of contexts and caches in order."""
    calls = []

    class ILogger:
        Severity = Severity

        def log(self, severity, msg): ...

    class DataType(enum.Enum):
        FLOAT = np.float32

    class TensorIOMode(enum.Enum):
        INPUT = 1
        OUTPUT = 2

    class ExecutionContextAllocationStrategy(enum.Enum):
        USER_MANAGED = 2

    class DynamicShapesKernelSpecializationStrategy(enum.Enum):
        EAGER = 1

    class CudaGraphStrategy(enum.Enum):
        DISABLED = 0

    class EngineValidity(enum.Enum):
        VALID = 0
        INVALID = 2

    class EngineInvalidityDiagnostics(enum.IntEnum):
        VERSION_MISMATCH = 1
        UNSUPPORTED_CC = 2
        INSUFFICIENT_GPU_MEMORY = 16

    class IRuntimeCache:
        def deserialize(self, blob):
            calls.append(("deserialize", bytes(blob)))
            return True

        def serialize(self):
            return b"compiled kernels"

    class IRuntimeConfig:
        def set_execution_context_allocation_strategy(self, strategy):
            assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED

        if portable:
            dynamic_shapes_kernel_specialization_strategy = None
            cuda_graph_strategy = None

            def create_runtime_cache(self):
                return IRuntimeCache()

            def set_runtime_cache(self, cache):
                self._cache = cache
                return True

    class IExecutionContext:
        def __init__(self, session, config):
            if portable:
                assert config.dynamic_shapes_kernel_specialization_strategy is (
                    DynamicShapesKernelSpecializationStrategy.EAGER
                )
                assert config.cuda_graph_strategy is CudaGraphStrategy.DISABLED
                assert config._cache is not None
            self._session, self._shapes, self._addresses, self._memory = session, {}, {}, None
            self._binding = session.io_binding()

        def set_optimization_profile_async(self, profile_index, stream_handle):
            calls.append(("profile", profile_index, stream_handle))
            return stream_handle in Array.gpu.streams

        def set_input_shape(self, name, shape):
            self._shapes[name] = tuple(shape)
            return True

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def set_device_memory(self, memory, size):
            self._memory = memory, size

        def infer_shapes(self):
            return [one.name for one in self._session.get_inputs() if one.name not in self._shapes]

        def execute_async_v3(self, stream_handle):
            assert self._memory, "no scratch memory"
            stream = Array.gpu.of(stream_handle)
            assert stream.device == Array.gpu.device, "enqueued while another device is the current one"
            read = [self._addresses[name] for name in self._shapes]
            stream.enqueue(self._run, read, [*self._addresses.values()], "engine")
            calls.append(("execute", stream_handle))
            return True

        if portable:

            def is_stream_capturable(self, stream):
                return stream in Array.gpu.streams

        def _run(self):
            inputs = {name: at(self._addresses[name], shape, np.float32) for name, shape in self._shapes.items()}
            names = [one.name for one in self._session.get_outputs()]
            for name, value in zip(names, self._session.run(names, inputs), strict=True):
                at(self._addresses[name], value.shape, np.float32)[...] = value

    class ICudaEngine:
        def __init__(self, content):
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            self._inputs = {one.name: one for one in self._session.get_inputs()}
            self._tensors = self._inputs | {one.name: one for one in self._session.get_outputs()}

        @property
        def num_io_tensors(self):
            return len(self._tensors)

        def get_tensor_name(self, index):
            return list(self._tensors)[index]

        def get_tensor_shape(self, name):
            return [size if isinstance(size, int) else -1 for size in self._tensors[name].shape]

        def get_tensor_dtype(self, name):
            assert self._tensors[name].type == "tensor(float)"
            return DataType.FLOAT

        def get_tensor_mode(self, name):
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_device_memory_size_for_profile_v2(self, profile_index):
            return 256 * (profile_index + 1)

        def create_runtime_config(self):
            return IRuntimeConfig()

        def create_execution_context(self, runtime_config):
            if context_fails:
                logger.log(Severity.ERROR, NO_MEMORY)
                return None
            calls.append(("context",))
            return IExecutionContext(self._session, runtime_config)

    class Runtime:
        def __init__(self, given):
            nonlocal logger
            logger = given

        def deserialize_cuda_engine(self, serialized_engine):
            if not serialized_engine.startswith(HEADER):
                logger.log(Severity.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
                return None
            return ICudaEngine(serialized_engine.removeprefix(HEADER))

        if portable:

            def get_engine_validity(self, buffer):
                return EngineValidity.INVALID if invalid else EngineValidity.VALID, invalid

    logger = None
    module = types.ModuleType(name)
    module.__version__ = version
    shared = (ILogger, DataType, TensorIOMode, ExecutionContextAllocationStrategy, Runtime, ICudaEngine)
    module.__dict__.update({one.__name__: one for one in (*shared, IExecutionContext, IRuntimeConfig)})
    module.nptype = lambda kind: kind.value
    if portable:
        module.ComputeCapability = Capabilities
        own = (DynamicShapesKernelSpecializationStrategy, CudaGraphStrategy, EngineValidity, IRuntimeCache)
        module.__dict__.update({one.__name__: one for one in (*own, EngineInvalidityDiagnostics)})
    module.calls = calls
    return module
