"""TensorRT on a GPU: engines of a bundle, bound to device addresses and enqueued on a stream.

`Plan` and `Bound` use addresses and streams of any origin; `bind` allocates on a device. Capture in a CUDA graph
requires a separate stream; scratch memory of the caller, so that nothing is allocated later; one execution context for
each batch size; and one enqueue at binding, before any capture, in which TensorRT prepares its resources and
TensorRT-RTX compiles its kernels for this shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpi_fast.atomic import atomic_path
from mpi_fast.bundle import Bundle
from mpi_fast.caches import cache_folder
from mpi_fast.errors import DeviceError, InputError, MismatchError, MPIFastError
from mpi_fast.kernels.launch import Array, Device
from mpi_fast.tensorrt_library import (
    FAILURES,
    EngineFacts,
    TensorRT,
    available,
    capability_name,
    device_capability,
    listed,
    tidy,
)

ALIGNMENT = 256  # of scratch memory; allocations of CuPy and CUDA have it


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine: its shape with -1 for the batch, its NumPy type, and its direction."""

    shape: tuple[int, ...]
    dtype: Any
    is_input: bool

    def sized(self, batch: int) -> tuple[int, ...]:
        """Its shape for a batch."""
        return tuple(batch if size == -1 else size for size in self.shape)


class Plan:
    """A deserialised engine.

    Parameters
    ----------
    trt : TensorRT
        The package that built it.
    content : bytes
        The engine.
    facts : EngineFacts
        Facts about the engine.

    Raises
    ------
    MismatchError
        If it is for another GPU, version or driver.
    ModelError
        If it is damaged.
    MPIFastError
        If the GPU has too little memory.
    """

    def __init__(self, trt: TensorRT, content: bytes, facts: EngineFacts) -> None:
        self.facts, self._trt = facts, trt
        trt.listen()
        self._runtime = trt.module.Runtime(trt.logger)  # the engine needs it as long as it lives
        if trt.portable:
            self._check(content)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise trt.failure(facts.file)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.tensors = {name: self._tensor(name) for name in names}
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(
            trt.module.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._runtime_cache: Any = None
        if trt.portable:
            self._compile_early()

    def profile(self, batch: int) -> int:
        """The optimisation profile for a batch: the smallest that contains it.

        Raises
        ------
        InputError
            If the engine has none for it.
        """
        fitting = [size for size in self.facts.batches if size >= batch]
        if batch < 1 or not fitting:
            raise InputError(
                f"{self.facts.file}: a batch of {batch}: expected 1 to {max(self.facts.batches)}; for more, build it "
                f"with --batch {batch}"
            )
        return self.facts.batches.index(min(fitting))

    def workspace(self, batch: int) -> int:
        """Bytes of scratch memory that a batch needs, at least one."""
        return max(1, int(self._engine.get_device_memory_size_for_profile_v2(self.profile(batch))))

    def bind(self, batch: int, addresses: Mapping[str, int], workspace: int, stream: int) -> "Bound":
        """Bind the engine to device memory, and run it once.

        Parameters
        ----------
        batch : int
            Number of frames.
        addresses : dict
            {tensor: device address} of every one of `tensors`, for this batch, contiguous. They must stay valid, and
            contain valid input numbers.
        workspace : int
            Device address of `workspace` bytes, a multiple of 256, which nothing else uses while this runs.
        stream : int
            Handle of a CUDA stream, not the default one, which would synchronise the device.

        Raises
        ------
        InputError
            For addresses that are missing, and the default stream.
        DeviceError
            If TensorRT fails.
        """
        return Bound(self, batch, addresses, workspace, stream)

    def _tensor(self, name: str) -> Tensor:
        mode, module = self._engine.get_tensor_mode(name), self._trt.module
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        return Tensor(shape, module.nptype(self._engine.get_tensor_dtype(name)), mode == module.TensorIOMode.INPUT)

    def _check(self, content: bytes) -> None:
        """Check an engine before it is deserialised, which would give no reason for a failure."""
        validity, reasons = self._runtime.get_engine_validity(content)
        if validity != self._trt.module.EngineValidity.INVALID:
            return
        named = self._trt.module.EngineInvalidityDiagnostics.__members__
        found = [name for name, bit in named.items() if int(reasons) & int(bit)]
        if "INSUFFICIENT_GPU_MEMORY" in found:
            raise MPIFastError(f"{self.facts.file}: not enough memory on the GPU; smaller batches need less (--batch)")
        messages = [tidy(message) for severity, message in self._trt.logger.lines if severity in FAILURES]
        raise MismatchError(
            f"{self.facts.file}: {self._trt.name} {self._trt.version} cannot run it here: "
            f"{', '.join(found).lower().replace('_', ' ') or '; '.join(messages) or 'no reason given'}"
        )

    def _compile_early(self) -> None:
        """Make TensorRT-RTX compile for this GPU and shape at once, instead of during a run, and only once."""
        module, config = self._trt.module, self._config
        config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED  # the caller captures the graph
        self._runtime_cache = config.create_runtime_cache()
        if self._cache_file.is_file():  # TensorRT ignores files of another driver or GPU
            self._runtime_cache.deserialize(self._cache_file.read_bytes())
        config.set_runtime_cache(self._runtime_cache)

    def _keep_compiled(self) -> None:
        if self._runtime_cache is None:
            return
        compiled = bytes(memoryview(self._runtime_cache.serialize()))
        self._cache_file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._cache_file) as temporary:
            temporary.write_bytes(compiled)

    @property
    def _cache_file(self) -> Path:
        return cache_folder("tensorrt") / f"{self.facts.key}.compiled"


class Bound:
    """An execution context with its addresses, see `Plan.bind`. It may be captured, and is for one stream at a time."""

    def __init__(self, plan: Plan, batch: int, addresses: Mapping[str, int], workspace: int, stream: int) -> None:
        if addresses.keys() != plan.tensors.keys():
            raise InputError(
                f"{plan.facts.file}: addresses of {', '.join(sorted(addresses))}: expected {', '.join(plan.tensors)}"
            )
        if not stream:
            raise InputError(f"{plan.facts.file}: the default stream: expected one of its own")
        self._plan, self._trt, self._stream = plan, plan._trt, stream
        self._what = f"{plan.facts.file}, batch {batch}"
        profile, size = plan.profile(batch), plan.workspace(batch)
        self._trt.listen()
        context = plan._engine.create_execution_context(plan._config)
        self._require(context is not None, "no execution context")
        self._context = context
        self._require(context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for name, tensor in plan.tensors.items():
            if tensor.is_input:
                self._require(context.set_input_shape(name, tensor.sized(batch)), f"shape of {name}")
            self._require(context.set_tensor_address(name, addresses[name]), f"address of {name}")
        context.set_device_memory(workspace, size)
        missing = context.infer_shapes()
        self._require(not missing, f"shapes of {', '.join(missing)}")
        self.enqueue()
        if self._trt.portable:
            self._require(context.is_stream_capturable(stream), "it could not be captured in a CUDA graph")
        plan._keep_compiled()

    def enqueue(self) -> None:
        """Put one run on the stream; returns at once.

        Raises
        ------
        DeviceError
            If TensorRT refuses.
        """
        self._require(self._context.execute_async_v3(self._stream), "not enqueued")

    def _require(self, fine: bool, what: str) -> None:
        if not fine:
            raise DeviceError(str(self._trt.failure(f"{self._what}: {what}")))


def bind(plan: Plan, batch: int, device: Device) -> tuple[dict[str, Array], Array, Bound]:
    """Buffers of an engine's tensors, filled with ones, its scratch memory, and the engine bound to both."""
    buffers = {name: device.empty(tensor.sized(batch), tensor.dtype) for name, tensor in plan.tensors.items()}
    scratch = device.empty((plan.workspace(batch) + ALIGNMENT,), np.uint8)
    with device.active():
        for array in buffers.values():
            array[:] = 1
    addresses = {name: device.address(array) for name, array in buffers.items()}
    workspace = -(-device.address(scratch) // ALIGNMENT) * ALIGNMENT
    return buffers, scratch, plan.bind(batch, addresses, workspace, device.stream_address)


def open_plan(bundle: Bundle, onnx: str) -> Plan:
    """The engine for the present GPU from one of a bundle's ONNX files.

    Parameters
    ----------
    bundle : Bundle
        Bundle with the ONNX file, and possibly with engines.
    onnx : str
        Name of the file.

    Raises
    ------
    MismatchError
        If its engines are for other GPUs or versions, or from another ONNX file.
    ModelError
        If an engine is damaged.
    MPIFastError
        If there is no GPU, or no TensorRT.
    """
    packages, capability = available(), device_capability()
    if capability is None:
        raise MPIFastError("TensorRT runs on an NVIDIA GPU, seen through CuPy: pip install 'mpi-fast[gpu]'")
    content = bundle.read(onnx)
    engines = [facts for facts in listed(bundle) if facts.onnx == onnx]
    for trt in packages:
        for facts in engines:
            runs_here = (facts.package, facts.version, facts.capability) == (trt.name, trt.version, capability)
            if runs_here and facts.built_from(content):
                return Plan(trt, bundle.read(facts.file), facts)
    here = ", ".join(f"{trt.name} {trt.version}" for trt in packages)
    others = "; ".join(str(facts) for facts in engines) or "none"
    raise MismatchError(
        f"{bundle.path}: no engine of {onnx} as it is now for {here} on compute capability "
        f"{capability_name(capability)} (there are: {others}); build one: python -m mpi_fast.export {bundle.path} "
        "--tensorrt"
    )
