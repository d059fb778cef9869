"""TensorRT: installed packages, the GPUs that they build for, and facts about engines.

NVIDIA has two packages with the same Python API. ``tensorrt`` builds on and for the present GPU of any kind.
``tensorrt_rtx`` builds anywhere, without a GPU, for a list of compute capabilities: RTX cards, but not data-centre GPUs
of capability 9.0. An engine works only with the package, the version and the capability that it was built for.

Compute capabilities are integers here: 89 is 8.9.
"""

import functools
import hashlib
import importlib
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mpi_fast.bundle import Bundle
from mpi_fast.errors import ModelError, MPIFastError
from mpi_fast.termination import raise_lost

PACKAGES = ("tensorrt", "tensorrt_rtx")  # in order of preference; the first supports every GPU
INSTALL = {"tensorrt": "pip install 'mpi-fast[tensorrt]'", "tensorrt_rtx": "pip install 'mpi-fast[tensorrt-rtx]'"}
OLDEST = {"tensorrt": 11, "tensorrt_rtx": 1}
FAILURES = ("INTERNAL_ERROR", "ERROR")
LOG = ".log"  # suffix of a file beside each engine with TensorRT's messages and the layers
LARGEST_LOG = 10**6  # lines; the largest engine so far has 10^5
_NO_MEMORY = re.compile(r"out of memory|insufficient memory|FAILED_ALLOCATION|cudaError 2\b", re.IGNORECASE)
_WHERE = re.compile(r" In \w+ at \S+|\[?\w+\.cpp:+\w*(::)?\d*[:\]] ?|\bIn function \w+:\s*")


@dataclass(frozen=True)
class TensorRT:
    """One of the two packages, imported.

    Attributes
    ----------
    name, version : str
        Name and version of the package.
    module : module
        The imported module.
    logger : ILogger
        The only logger of the process, as TensorRT requires; its ``lines`` are (severity, message).
    """

    name: str
    version: str
    module: Any
    logger: Any

    @property
    def portable(self) -> bool:
        """Whether the package builds for GPUs that are not in this machine."""
        return hasattr(self.module, "ComputeCapability")

    def capabilities(self) -> tuple[int, ...]:
        """Compute capabilities that the package builds for on this machine."""
        if not self.portable:
            device = device_capability()
            return () if device is None else (device,)
        members = self.module.ComputeCapability.__members__
        return tuple(sorted(int(name[2:]) for name in members if re.fullmatch(r"SM\d+", name)))

    def listen(self) -> deque[tuple[str, str]]:
        """Clear the log, and return the queue of new messages."""
        lines: deque[tuple[str, str]] = self.logger.lines
        lines.clear()
        return lines

    def failure(self, what: str) -> MPIFastError:
        """The error to raise when TensorRT has failed, with its log or a lack of memory."""
        log = "; ".join(tidy(message) for severity, message in self.logger.lines if severity in FAILURES)
        if _NO_MEMORY.search(log):
            return MPIFastError(f"{what}: not enough memory on the GPU: {log}; smaller batches need less (--batch)")
        return ModelError(f"{what}: {self.name} {self.version} failed: {log or 'it does not say why'}")


def tidy(message: str) -> str:
    """Shorten a message of TensorRT to one line without positions in its own sources."""
    lines = (line for line in message.splitlines() if "catchCudaError" not in line)
    return " ".join(_WHERE.sub("", " ".join(lines)).split())


@functools.cache
def load(name: str) -> TensorRT:
    """Import a package.

    Raises
    ------
    MPIFastError
        If the package or its library is missing or too old.
    """
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise_lost(error)
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MPIFastError(f"{name} is not installed: {INSTALL[name]}") from error
        raise MPIFastError(
            f"{name} is installed, but its library cannot be loaded ({error}); reinstall it: {INSTALL[name]}"
        ) from error
    version = str(module.__version__)
    if int(version.split(".")[0]) < OLDEST[name]:
        raise MPIFastError(f"{name} {version}: expected {OLDEST[name]} or newer: {INSTALL[name]}")
    return TensorRT(name, version, module, _logger(module))


def _logger(module: Any) -> Any:
    class Recorder(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: deque[tuple[str, str]] = deque(maxlen=LARGEST_LOG)

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity.name, message))

    return Recorder()


def available() -> list[TensorRT]:
    """The installed packages, in order of preference.

    Raises
    ------
    MPIFastError
        If there is none; the message gives the reason for each.
    """
    found, reasons = [], []
    for name in PACKAGES:
        try:
            found.append(load(name))
        except MPIFastError as error:
            reasons.append(str(error))
    if not found:
        raise MPIFastError(f"no TensorRT: {'; '.join(reasons)}. RTX cards: either; H100, H200: tensorrt")
    return found


def device_capability() -> int | None:
    """Compute capability of the current GPU; None without a GPU or without CuPy."""
    try:
        import cupy
    except ImportError as error:
        raise_lost(error)
        return None
    return int(cupy.cuda.Device().compute_capability) if cupy.cuda.is_available() else None


def capability_name(capability: int) -> str:
    """89 -> "8.9"."""
    return f"{capability // 10}.{capability % 10}"


@dataclass(frozen=True)
class EngineFacts:
    """Facts about an engine in the manifest.

    Attributes
    ----------
    file, onnx : str
        File of the engine, and the ONNX file that it was built from.
    key : str
        See `engine_key`.
    package, version : str
        Package and version of TensorRT that built it.
    capability : int
        Compute capability that it runs on.
    precision : str
        Precision of the inner layers: fp32 or fp16.
    tf32 : bool
        Whether float32 products may be rounded to TF32's ten bits.
    batches : tuple of int
        Batch sizes with an optimisation profile each, which is valid from 1 to this size.
    workspace : tuple of int
        Scratch memory of each profile in bytes.
    layers : tuple of dict
        For each profile, {type of the output: number of layers} after fusion, which are launched.
    """

    file: str
    onnx: str
    key: str
    package: str
    version: str
    capability: int
    precision: str
    tf32: bool
    batches: tuple[int, ...]
    workspace: tuple[int, ...]
    layers: tuple[dict[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """The entry of the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "EngineFacts":
        """Read an entry of the manifest; raises KeyError or TypeError for anything else."""
        known = {field.name: entry[field.name] for field in fields(cls)}
        lists = {name: tuple(int(n) for n in entry[name]) for name in ("batches", "workspace")}
        return cls(**{**known, **lists, "layers": tuple(dict(one) for one in entry["layers"])})

    def built_from(self, content: bytes) -> bool:
        """Whether this engine was built from the present contents of an ONNX file."""
        return self.key == engine_key(content, self.package, self.version, self.capability, self.batches, self.tf32)

    @property
    def made_for(self) -> str:
        """The package, version and GPU that can run it."""
        return f"{self.package} {self.version}, compute capability {capability_name(self.capability)}"

    def __str__(self) -> str:
        precision = f"{self.precision}{', TF32' if self.tf32 else ''}"
        return f"{self.file}: {self.made_for}, {precision}, batches of 1 to {max(self.batches)}"


def engine_key(
    content: bytes, package: str, version: str, capability: int, batches: tuple[int, ...], tf32: bool
) -> str:
    """Hash of everything that an engine depends on: the ONNX file, TensorRT, the GPU and the options."""
    parts = [hashlib.sha256(content).hexdigest(), package, version, capability, list(batches), tf32]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def listed(bundle: Bundle) -> list[EngineFacts]:
    """The engines in a bundle.

    Raises
    ------
    ModelError
        If the list in the manifest is damaged.
    """
    try:
        return [EngineFacts.from_dict(entry) for entry in bundle.manifest.get("engines", ())]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{bundle.path}: the manifest's list of engines is damaged: {error}") from error
