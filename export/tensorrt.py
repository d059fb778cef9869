"""ONNX -> TensorRT engines, by one of its two packages; see `mpi_fast.tensorrt_library`.

Networks are strongly typed: the ONNX graph determines the precision of every layer. A flag only allows float32 products
to be rounded to TF32.
"""

import contextlib
import hashlib
import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from mpi_fast.atomic import atomic_path
from mpi_fast.bundle import FROZEN, Bundle, half_name, write_bundle
from mpi_fast.caches import cache_folder
from mpi_fast.errors import InputError, ModelError, MPIFastError
from mpi_fast.export.preflight import builder, parse, preflight
from mpi_fast.export.turing import replace_matrix_products
from mpi_fast.tensorrt_library import (
    LOG,
    EngineFacts,
    TensorRT,
    available,
    capability_name,
    device_capability,
    engine_key,
    listed,
)

AMPERE = 80
Watch = Callable[[str, int, int], None]  # engine file, steps done, total steps
_LAYER = re.compile(
    r"^Name: (?P<name>.*), LayerType: (?P<kind>\w+), .*?Outputs: \[ \{ .*?Dimensions: (?P<shape>\[.*?\]), "
    r".*?Datatype: (?P<type>\w+).*$",
    re.MULTILINE,
)
_PROFILE = re.compile(r"_myl(\d+)_\d+$")  # how the compiler numbers the layers of each profile
_WORKSPACE = re.compile(r"Total Activation Memory: (\d+) bytes")


def choose(capabilities: tuple[int, ...] = ()) -> tuple[TensorRT, tuple[int, ...]]:
    """The package that builds for these GPUs, and the capabilities to build for: by default that of the present GPU.

    Raises
    ------
    InputError
        If no installed package can; the message lists the capabilities of each.
    """
    packages = available()
    device = device_capability()
    wanted = capabilities or (() if device is None else (device,))
    if not wanted:
        raise InputError("this machine has no GPU to build for: expected compute capabilities, such as --sm 89,120")
    for trt in packages:
        if set(wanted) <= set(trt.capabilities()):
            return trt, wanted
    can = "; ".join(
        f"{trt.name} {trt.version} builds here for {_names(trt.capabilities()) or 'nothing'}" for trt in packages
    )
    raise InputError(
        f"compute capability {_names(wanted)}: {can}. tensorrt-rtx builds anywhere, for RTX cards; other GPUs, "
        "among them H100 and H200 (9.0), need the package tensorrt on a machine that has the GPU, without --sm"
    )


def sources(bundle: Bundle) -> list[str]:
    """The ONNX files for which engines are built: those frozen for a scanner.

    Raises
    ------
    InputError
        If there is none. Graphs for every scanner have a variable grid and rank, which engines do not support.
    """
    names = [name for name in (FROZEN, half_name(FROZEN)) if name in bundle.manifest["files"]]
    if not names:
        raise InputError(
            f"{bundle.path}: engines are built for a scanner, and no graph in it is frozen for one: add --calibration "
            "SCANNER.h5"
        )
    return names


def add_engines(
    bundle: Bundle, trt: TensorRT, capabilities: Iterable[int], batches: tuple[int, ...], tf32: bool, watch: Watch
) -> Bundle:
    """Build engines of a bundle's `sources` for every capability, and write the bundle anew with them.

    Engines that were there are kept, unless their ONNX file has changed or another takes their place.

    Parameters
    ----------
    bundle : Bundle
        Bundle, which is replaced.
    trt, capabilities : TensorRT, iterable of int
        See `choose`.
    batches : tuple of int
        Batch sizes, see `tensorrt_library.EngineFacts`.
    tf32 : bool
        Whether float32 products may be rounded to TF32.
    watch : callable
        Called with the progress: engine file, steps done, total steps.

    Raises
    ------
    InputError
        If there is no frozen graph, see `sources`.
    ModelError
        For graphs that TensorRT refuses, before anything is built, and for builds that fail.
    """
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    graphs = {name: contents[name] for name in sources(bundle)}
    problems = [f"{name}: {problem}" for name, content in graphs.items() for problem in preflight(trt, content)]
    if problems:
        raise ModelError(f"{bundle.path}: {trt.name} {trt.version} would refuse it: {'; '.join(problems)}")
    kept = {facts.file: facts for facts in listed(bundle) if facts.built_from(graphs.get(facts.onnx, b""))}
    for file in {facts.file for facts in listed(bundle)} - kept.keys():
        del contents[file], contents[file + LOG]
    for name, content in graphs.items():
        for capability in capabilities:
            facts, plan, said = cached(trt, name, content, capability, batches, tf32, watch)
            kept[facts.file], contents[facts.file] = facts, plan
            contents[facts.file + LOG] = f"{facts}\n{said}\n".encode()
    described = {name: value for name, value in bundle.manifest.items() if name not in ("format", "kind", "files")}
    engines = [facts.to_dict() for facts in kept.values()]
    return write_bundle(bundle.path, {**described, "engines": engines}, contents)


def cached(
    trt: TensorRT, name: str, content: bytes, capability: int, batches: tuple[int, ...], tf32: bool, watch: Watch
) -> tuple[EngineFacts, bytes, str]:
    """`build_engine`, or its stored result for equal arguments."""
    key = engine_key(content, trt.name, trt.version, capability, batches, tf32)
    folder = cache_folder("tensorrt")
    plan_file, facts_file = folder / f"{key}.engine", folder / f"{key}.json"
    try:
        saved, plan = json.loads(facts_file.read_text(encoding="utf-8")), plan_file.read_bytes()
        if saved["sha256"] == hashlib.sha256(plan).hexdigest():
            facts = replace(EngineFacts.from_dict(saved["facts"]), file=_file(name, capability), onnx=name)
            return facts, plan, saved["log"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or damaged, so it is built again
    facts, plan, log = build_engine(trt, name, content, capability, batches, tf32, watch)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(plan_file) as temporary:
        temporary.write_bytes(plan)
    saved = {"facts": facts.to_dict(), "sha256": hashlib.sha256(plan).hexdigest(), "log": log}
    with atomic_path(facts_file) as temporary:
        temporary.write_text(json.dumps(saved), encoding="utf-8")
    return facts, plan, log


def build_engine(
    trt: TensorRT, name: str, content: bytes, capability: int, batches: tuple[int, ...], tf32: bool, watch: Watch
) -> tuple[EngineFacts, bytes, str]:
    """Build one engine.

    Parameters
    ----------
    trt : TensorRT
        Package that builds.
    name, content : str, bytes
        Name and contents of the ONNX file.
    capability, batches, tf32
        See `tensorrt_library.EngineFacts`.
    watch : callable
        Called with the progress: engine file, steps done, total steps.

    Returns
    -------
    facts, plan, log : EngineFacts, bytes, str
        Description of the engine, the serialised engine, and the layers that TensorRT reported.

    Raises
    ------
    ModelError
        If TensorRT refuses the graph or fails.
    MPIFastError
        If there is too little memory.
    """
    maker = builder(trt)
    network = maker.create_network()
    parser, errors = parse(trt, network, content)
    if errors:
        raise ModelError(f"{name}: {trt.name} {trt.version} refuses it: {'; '.join(errors)}")
    if trt.portable and capability < AMPERE:
        replace_matrix_products(trt.module, network)
    file = _file(name, capability)
    config = _config(trt, maker, network, capability, batches, tf32)
    with _interrupts() as pending:
        config.progress_monitor = _monitor(trt.module, lambda *step: watch(file, *step), pending)
        try:
            plan = maker.build_serialized_network(network, config)
        except MemoryError as error:
            raise MPIFastError(f"{name}: not enough memory to build an engine of it") from error
    del parser  # its weights were needed until here
    if pending:
        raise KeyboardInterrupt
    if plan is None:
        raise trt.failure(f"{name}, for compute capability {capability_name(capability)}")
    log = "\n".join(
        message for severity, message in trt.logger.lines if severity != "VERBOSE" or "LayerType: " in message
    )
    facts = EngineFacts(
        file,
        name,
        engine_key(content, trt.name, trt.version, capability, batches, tf32),
        trt.name,
        trt.version,
        capability,
        _precision(trt, network),
        tf32,
        batches,
        tuple(int(size) for size in _WORKSPACE.findall(log)),
        _layers(log, len(batches)),
    )
    short = _LAYER.sub(r"\g<name>: \g<kind> -> \g<type> \g<shape>", log)
    return facts, bytes(memoryview(plan)), short


def _layers(log: str, profiles: int) -> tuple[dict[str, int], ...]:
    """The layers of each profile, after fusion, by the type of their output."""
    counts: list[Counter[str]] = [Counter() for _ in range(profiles)]
    for layer in _LAYER.finditer(log):
        profile = _PROFILE.search(layer["name"])
        counts[int(profile[1]) if profile else 0][layer["type"]] += 1
    return tuple(dict(count) for count in counts)


def _config(trt: TensorRT, maker: Any, network: Any, capability: int, batches: tuple[int, ...], tf32: bool) -> Any:
    module, config = trt.module, maker.create_builder_config()
    for largest in batches:
        profile = maker.create_optimization_profile()
        for index in range(network.num_inputs):
            given = network.get_input(index)
            first, *rest = given.shape
            if first == -1:
                profile.set_shape(given.name, (1, *rest), (largest, *rest), (largest, *rest))
        config.add_optimization_profile(profile)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # logs the final layers
    config.max_aux_streams = 0  # one stream, which a CUDA graph can capture
    (config.set_flag if tf32 else config.clear_flag)(module.BuilderFlag.TF32)
    if trt.portable:
        config.num_compute_capabilities = 1
        config.set_compute_capability(module.ComputeCapability.__members__[f"SM{capability}"], 0)
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)  # allocations cannot be captured
    return config


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect interrupts, because exceptions would be lost in TensorRT's callbacks."""
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # other threads get no signals
        yield pending
        return
    previous = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    try:
        yield pending
    finally:
        signal.signal(signal.SIGINT, previous)


def _monitor(module: Any, watch: Callable[[int, int], None], pending: list[int]) -> Any:
    """Report the steps of the outermost phase, and cancel the build if an interrupt is pending."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.outermost: tuple[str, int] | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.outermost = self.outermost or (name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if self.outermost and name == self.outermost[0]:
                watch(step + 1, self.outermost[1])
            return not pending

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


def _precision(trt: TensorRT, network: Any) -> str:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    half = any(layer.get_output_type(0) == trt.module.float16 for layer in layers)
    return "fp16" if half else "fp32"


def _file(onnx: str, capability: int) -> str:
    return f"{onnx.removesuffix('.onnx')}.sm{capability}.engine"


def _names(capabilities: Iterable[int]) -> str:
    return ", ".join(capability_name(one) for one in capabilities)
