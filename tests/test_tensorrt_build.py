"""Building TensorRT engines without a GPU: every artefact for every RTX capability, its facts, all that may fail."""

import importlib
import json
import re
import signal
import subprocess
import sys
import types

import onnx
import pytest
import typer
from bindings import bindings, without_library
from onnx import TensorProto, helper
from typer.testing import CliRunner

from mpi_fast import tensorrt_library
from mpi_fast.bundle import FROZEN, PLANE, VOLUME, half_name, write_bundle
from mpi_fast.cli import app
from mpi_fast.errors import InputError, ModelError, MPIFastError
from mpi_fast.export.preflight import builder, parse, preflight
from mpi_fast.export.turing import replace_matrix_products
from mpi_fast.limits import EVALUATIONS

command = importlib.import_module("mpi_fast.export.__main__")
build = importlib.import_module("mpi_fast.export.tensorrt")
BATCHES = (1, 4)
HALVED = half_name(FROZEN)
BLOCKS = 3  # of the network in `exported`
CAPABILITIES = (75, 80, 86, 89, 120)
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    return tensorrt_library.load("tensorrt_rtx")


@pytest.fixture(scope="module")
def contents(exported):
    """Every graph that engines are built of, of a small network and scanner."""
    return {name: exported.read(name) for name in (FROZEN, HALVED)}


def bundle_of(folder, contents, **more):
    others = dict.fromkeys((PLANE, VOLUME), b"no engine is built of this")
    return write_bundle(folder / "bundle", {"sigma_range": [0.02, 10.0], **more}, {**others, **contents})


def quiet(*_):
    """No one watches."""


def profiles(log, name):
    """(smallest, best, largest) shape of an input in each profile, from what TensorRT logs of the finished engine."""
    line = next(line for line in log.splitlines() if f" Name: {name}, IOMode: Input" in line)
    shapes = re.findall(r"MinShape: (\[.*?\]), OptShape: (\[.*?\]), MaxShape: (\[.*?\])", line)
    return [tuple(json.loads(shape) for shape in one) for one in shapes]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_artefact_for_every_capability(rtx, contents, tmp_path, capability):
    told = []
    bundle = build.add_engines(
        bundle_of(tmp_path, contents), rtx, [capability], BATCHES, True, lambda *step: told.append(step)
    )
    engines = {facts.file: facts for facts in tensorrt_library.listed(bundle)}
    assert engines.keys() == {f"{name}.sm{capability}.engine" for name in ("frozen", "frozen.fp16")}
    for file, facts in engines.items():
        model = onnx.load_from_string(contents[facts.onnx])
        log = bundle.read(f"{file}.log").decode()
        assert len(bundle.read(file)) > 1000
        assert (facts.package, facts.version, facts.capability) == (rtx.name, rtx.version, capability)
        assert facts.precision == ("fp16" if "fp16" in file else "fp32")
        assert facts.built_from(contents[facts.onnx])
        assert facts.batches == BATCHES
        assert len(facts.workspace) == len(facts.layers) == len(BATCHES)
        for layers in facts.layers:
            assert 5 < sum(layers.values()) < len(model.graph.node)
            assert ("Half" in layers) == ("fp16" in file)
        free = [value for value in model.graph.input if value.type.tensor_type.shape.dim[0].dim_param]
        assert free
        for value in free:
            rest = [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
            assert profiles(log, value.name) == [([1, *rest], [size, *rest], [size, *rest]) for size in BATCHES]
        for value in model.graph.output:
            assert f" Name: {value.name}, IOMode: Output, DataType: Float" in log
    assert {file for file, _, _ in told} == engines.keys()
    assert all(0 < done <= total for _, done, total in told)


def test_a_profile_for_every_batch(rtx, contents):
    """Valid from one frame to the batch; larger ones need more scratch memory, and TF32 is as asked."""
    facts, plan, log = build.build_engine(rtx, FROZEN, contents[FROZEN], 89, (1, 8, 64), False, quiet)
    assert not facts.tf32
    assert len(plan) > 1000
    assert facts.workspace == tuple(sorted(facts.workspace))
    model = onnx.load_from_string(contents[FROZEN])
    rows = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert [largest for _, _, largest in profiles(log, "real")] == [[1, rows], [8, rows], [64, rows]]


def test_layers_have_the_precision_of_the_graph(rtx, contents):
    """In half precision the convolutions, but for each block's last; never what combines signals, nor the edges."""
    network = builder(rtx).create_network()
    parser, errors = parse(rtx, network, contents[HALVED])
    assert not errors
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = rtx.module.LayerType
    convolutions = [one.get_output(0).dtype for one in layers if one.type == kinds.CONVOLUTION]
    assert convolutions.count(rtx.module.float32) == BLOCKS * EVALUATIONS
    assert set(convolutions) == {rtx.module.float16, rtx.module.float32}
    assert convolutions[-1] == rtx.module.float32
    products = [one.get_output(0).dtype for one in layers if one.type == kinds.MATRIX_MULTIPLY]
    assert products
    assert set(products) == {rtx.module.float32}
    edges = [network.get_input(index).dtype for index in range(network.num_inputs)] + [network.get_output(0).dtype]
    assert set(edges) == {rtx.module.float32}
    del parser


def test_tf32_is_a_flag_of_the_build(rtx, contents):
    for tf32 in (True, False):
        maker = builder(rtx)
        network = maker.create_network()
        parser, _ = parse(rtx, network, contents[FROZEN])
        config = build._config(rtx, maker, network, 89, BATCHES, tf32)
        assert config.get_flag(rtx.module.BuilderFlag.TF32) == tf32
        assert config.get_flag(rtx.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
        assert (config.max_aux_streams, config.num_optimization_profiles) == (0, 2)
        del parser


def test_float32_products_for_turing(rtx, contents, monkeypatch):
    """TensorRT-RTX has none for compute capability 7.5; sums take their place, and only there."""
    monkeypatch.setattr(build, "replace_matrix_products", quiet)
    arguments = rtx, FROZEN, contents[FROZEN]
    with pytest.raises(ModelError, match=r"frozen\.onnx, for compute capability 7\.5: .*FP32 GEMM is not supported"):
        build.build_engine(*arguments, 75, (1,), True, quiet)
    build.build_engine(*arguments, 80, (1,), True, quiet)


def test_nothing_is_built_twice(rtx, contents, tmp_path, monkeypatch, cache):
    content = contents[FROZEN]
    arguments = (rtx, FROZEN, content, 89, BATCHES)
    first = build.cached(*arguments, True, quiet)
    built = []
    monkeypatch.setattr(build, "build_engine", lambda *given: built.append(given) or first)
    assert build.cached(*arguments, True, quiet) == first
    assert not built
    build.cached(*arguments, False, quiet)
    build.cached(rtx, FROZEN, content, 120, BATCHES, True, quiet)
    build.cached(rtx, FROZEN, content, 89, (1,), True, quiet)
    assert len(built) == 3
    next(cache.glob(f"{first[0].key}.engine")).write_bytes(b"damaged")
    build.cached(*arguments, True, quiet)
    assert len(built) == 4


def test_engines_for_other_gpus_stay_and_those_of_other_graphs_go(rtx, contents, tmp_path):
    bundle = build.add_engines(bundle_of(tmp_path, contents), rtx, [89], (1,), True, quiet)
    bundle = build.add_engines(bundle, rtx, [120], (1,), True, quiet)
    assert {facts.capability for facts in tensorrt_library.listed(bundle)} == {89, 120}
    changed = {name: bundle.read(name) for name in bundle.manifest["files"]}
    model = onnx.load_from_string(changed[HALVED])
    model.doc_string = "another"
    changed[HALVED] = model.SerializeToString()
    bundle = bundle_of(tmp_path, changed, engines=bundle.manifest["engines"])
    bundle = build.add_engines(bundle, rtx, [120], (1,), True, quiet)
    files = {facts.file for facts in tensorrt_library.listed(bundle)}
    assert files == {"frozen.sm89.engine", "frozen.sm120.engine", "frozen.fp16.sm120.engine"}
    assert "frozen.fp16.sm89.engine" not in bundle.manifest["files"]


def graph(nodes, inputs, outputs, opset=20, domain=None):
    def values(given):
        return [helper.make_tensor_value_info(*one) for one in given]

    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    made = [helper.make_node(kind, given, [out], name=name, **options) for kind, given, out, name, options in nodes]
    model = helper.make_model(
        helper.make_graph(made, "graph", values(inputs), values(outputs)), opset_imports=imports, ir_version=10
    )
    return model.SerializeToString()


X, Z = ("x", FLOAT, ["batch", 3]), ("z", FLOAT, ["batch", 3])
REFUSED = {
    "types that do not go together": (
        graph([("Add", ["x", "y"], "z", "adder", {})], [X, ("y", HALF, ["batch", 3])], [Z]),
        r"node adder \(Add\): .*must have same input types. But they are of types Float and Half",
    ),
    "an operator of one runtime": (
        graph([("Gelu", ["x"], "z", "gelu", {"domain": "com.microsoft"})], [X], [Z], domain="com.microsoft"),
        r"node gelu: operator com\.microsoft\.Gelu is not plain ONNX",
    ),
    "an operator that TensorRT lacks": (
        graph([("Det", ["x"], "z", "deter", {})], [("x", FLOAT, ["batch", 3, 3])], [("z", FLOAT, ["batch"])]),
        r"node deter: TensorRT has no operator Det",
    ),
    "float64": (
        graph(
            [
                ("Cast", ["x"], "wide", "up", {"to": DOUBLE}),
                ("Sqrt", ["wide"], "root", "root", {}),
                ("Cast", ["root"], "z", "down", {"to": FLOAT}),
            ],
            [X],
            [Z],
        ),
        r"tensor wide: DOUBLE, which TensorRT does not compute in.*tensor root: DOUBLE",
    ),
    "an unknown opset": (graph([("Sqrt", ["x"], "z", "root", {})], [X], [Z], opset=99), r"opset 99: expected 9 to"),
    "a second free axis": (
        graph([("Sqrt", ["x"], "z", "root", {})], [("x", FLOAT, ["b", "n"])], [("z", FLOAT, ["b", "n"])]),
        r"input x: axis 1 is not fixed",
    ),
    "garbage": (b"garbage", "not an ONNX graph"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_preflight(rtx, tmp_path, what):
    content, said = REFUSED[what]
    assert re.search(said, "; ".join(preflight(rtx, content)))
    bundle = bundle_of(tmp_path, {FROZEN: content})
    with pytest.raises(ModelError, match=rf"(?s)would refuse it: frozen\.onnx: .*{said}"):
        build.add_engines(bundle, rtx, [89], (1,), True, quiet)
    assert not (tmp_path / "cache").exists()


def test_nothing_is_refused_of_ours(rtx, contents):
    assert all(preflight(rtx, content) == [] for content in contents.values())


def test_parser_errors_name_the_node(rtx):
    with pytest.raises(ModelError, match=r"bad\.onnx: tensorrt_rtx .* refuses it: node adder \(Add\): "):
        build.build_engine(rtx, "bad.onnx", REFUSED["types that do not go together"][0], 89, (1,), True, quiet)


def test_an_interrupt_ends_the_build(rtx, contents):
    """Ctrl-C, wherever it comes up: the bindings would print and forget an exception in one of their callbacks."""

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build.build_engine(rtx, FROZEN, contents[FROZEN], 89, (1,), True, interrupt)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def packages(monkeypatch):
    """Hide both packages, and look for them anew."""
    for name in tensorrt_library.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    tensorrt_library.load.cache_clear()
    yield monkeypatch
    tensorrt_library.load.cache_clear()


def test_no_package(packages):
    with pytest.raises(
        MPIFastError, match=r"no TensorRT: tensorrt is not installed: pip install .*\[tensorrt\].*"
    ) as said:
        build.choose((89,))
    assert "tensorrt_rtx is not installed: pip install 'mpi-fast[tensorrt-rtx]'" in str(said.value)


def test_a_package_without_its_library(packages, tmp_path):
    missing = "libnvinfer.so.11: cannot open shared object file: No such file or directory"
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({missing!r})")
    packages.delitem(sys.modules, "tensorrt")
    packages.syspath_prepend(tmp_path)
    with pytest.raises(MPIFastError, match=r"tensorrt is installed, but its library cannot be loaded \(libnvinfer\.so"):
        tensorrt_library.load("tensorrt")


def test_a_package_too_old(packages, tmp_path):
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.16.1'")
    packages.delitem(sys.modules, "tensorrt")
    packages.syspath_prepend(tmp_path)
    with pytest.raises(MPIFastError, match=r"tensorrt 10\.16\.1: expected 11 or newer"):
        tensorrt_library.load("tensorrt")


BUILD = """
from mpi_fast import tensorrt_library
from mpi_fast.errors import MPIFastError
from mpi_fast.export.preflight import builder
try:
    builder(tensorrt_library.load("tensorrt"))
except MPIFastError as error:
    print(error)
"""


def test_the_data_centre_package_without_a_gpu(tmp_path):
    """Its builder is then a null pointer; so is that of a library without anything in it."""
    ran = subprocess.run(
        [sys.executable, "-c", BUILD], env=without_library(tmp_path), capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(
        "no engine can be built on this machine (is there a GPU and its driver?): tensorrt 11."
    )


def test_capabilities_that_nothing_here_builds_for(rtx, monkeypatch):
    with pytest.raises(InputError, match=r"9\.0: .*tensorrt_rtx .* builds here for 7\.5, .*H100 and H200 \(9\.0\)"):
        build.choose((89, 90))
    monkeypatch.setattr(build, "device_capability", lambda: None)
    with pytest.raises(InputError, match=r"no GPU is at hand .* --sm 89,120"):
        build.choose()
    monkeypatch.setattr(build, "device_capability", lambda: 90)
    with pytest.raises(InputError, match=r"compute capability 9\.0: "):
        build.choose()
    monkeypatch.setattr(build, "device_capability", lambda: 120)
    assert build.choose()[1] == (120,)


def test_not_enough_memory(rtx):
    rtx.listen().append(
        ("ERROR", "[x.cpp::alloc::1] Error Code 2: OutOfMemory (cudaError 2: out of memory) In f at /a.cpp:1")
    )
    error = rtx.failure("frozen.onnx")
    assert re.fullmatch(
        r"frozen\.onnx: not enough memory on the GPU: .*smaller batches need less \(--batch\)", str(error)
    )
    assert ".cpp" not in str(error)


class Recording:
    """An object of the bindings that writes down what is asked of it and of all objects that it returns."""

    def __init__(self, real, asked):
        self.__dict__.update(real=real, asked=asked)

    def __getattr__(self, name):
        self._note(name)
        return self._wrap(getattr(self.real, name))

    def __setattr__(self, name, value):
        self._note(name)
        setattr(self.real, name, value)

    def __call__(self, *given):
        return self._wrap(self.real(*[one.real if isinstance(one, Recording) else one for one in given]))

    def _note(self, name):
        kind = self.real if isinstance(self.real, type) else type(self.real)
        self.asked.add(("" if isinstance(self.real, types.ModuleType) else kind.__name__, name))

    def _wrap(self, value):
        kind = value if isinstance(value, type) else type(value)
        is_enum_member = not isinstance(value, type) and "__members__" in dir(kind)
        if is_enum_member or kind.__name__ in ("ILogger", "IProgressMonitor", "Dims", "IHostMemory"):
            return value
        ours = kind.__module__.startswith("tensorrt_rtx")
        return Recording(value, self.asked) if ours or callable(value) else value


def test_the_build_asks_for_nothing_that_the_data_centre_package_lacks(rtx, contents, tmp_path):
    """Every attribute that a build uses is in the other package's bindings, too, but for what it asks of RTX alone."""
    asked = set()
    recording = tensorrt_library.TensorRT(rtx.name, rtx.version, Recording(rtx.module, asked), rtx.logger)
    build.build_engine(recording, FROZEN, contents[FROZEN], 89, (1,), True, quiet)
    preflight(recording, REFUSED["types that do not go together"][0])
    real = bindings("tensorrt", tmp_path)
    assert {
        ("Builder", "build_serialized_network"),
        ("ParserError", "node_name"),
        ("ILayer", "get_output_type"),
    } <= asked
    lacking = {(kind, name) for kind, name in asked if kind not in real or name not in real[kind]}
    assert lacking == {
        ("", "ComputeCapability"),
        ("ComputeCapability", "__members__"),
        ("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
        ("IBuilderConfig", "num_compute_capabilities"),
        ("IBuilderConfig", "set_compute_capability"),
    }


def test_command_line(rtx, contents, tmp_path):
    bundle = bundle_of(tmp_path, contents)
    export, runner = typer.Typer(), CliRunner()
    export.command()(command.export)
    given = ["--tensorrt", "--sm", "89,120", "--batch", "4,1", "--no-tf32", "--json", str(tmp_path / "said.json")]
    result = runner.invoke(export, [str(bundle.path), *given])
    assert result.exit_code == 0, result.output
    engines = json.loads((tmp_path / "said.json").read_text())["engines"]
    assert [(one["onnx"], one["capability"]) for one in engines] == [
        (FROZEN, 89),
        (FROZEN, 120),
        (HALVED, 89),
        (HALVED, 120),
    ]
    assert all(one["batches"] == [1, 4] and not one["tf32"] for one in engines)
    shown = runner.invoke(app, ["info", str(bundle.path), "--json", str(tmp_path / "info.json")])
    assert shown.exit_code == 0
    described = json.loads((tmp_path / "info.json").read_text())[str(bundle.path)]["TensorRT engines"].splitlines()
    assert described[1] == (
        f"frozen.sm120.engine: tensorrt_rtx {rtx.version}, compute capability 12.0, fp32, batches of 1 to 4"
    )
    assert len(described) == 4


@pytest.mark.parametrize(
    "wrong", [["--sm", "90"], ["--sm", "ada"], ["--batch", "0"], ["--batch", ""], ["--sm", "89", "-o", "elsewhere"]]
)
def test_options_that_make_no_sense(rtx, contents, tmp_path, wrong):
    bundle = bundle_of(tmp_path, contents)
    export = typer.Typer()
    export.command()(command.export)
    before = sorted(file.name for file in bundle.path.iterdir())
    assert CliRunner().invoke(export, [str(bundle.path), "--tensorrt", *wrong]).exit_code == 2
    assert sorted(file.name for file in bundle.path.iterdir()) == before


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_sums_have_the_shapes_of_products(rtx, left, right):
    """(2, 5, 4) times (2, 4, 6), either operand stored transposed, and the result times (2, 6, 3)."""
    module, network = rtx.module, builder(rtx).create_network()
    plain, transposed = module.MatrixOperation.NONE, module.MatrixOperation.TRANSPOSE
    a = network.add_input("a", module.float32, (2, 4, 5) if left else (2, 5, 4))
    b = network.add_input("b", module.float32, (2, 6, 4) if right else (2, 4, 6))
    c = network.add_input("c", module.float32, (2, 6, 3))
    first = network.add_matrix_multiply(a, transposed if left else plain, b, transposed if right else plain)
    second = network.add_matrix_multiply(first.get_output(0), plain, c, plain)
    last = network.add_activation(second.get_output(0), module.ActivationType.RELU)
    first.name, second.name = "first", "second"
    replace_matrix_products(module, network)
    layers = {network.get_layer(index).name: network.get_layer(index) for index in range(network.num_layers)}
    assert tuple(layers["first.sum"].get_output(0).shape) == (2, 5, 6)
    assert last.get_input(0).name == layers["second.sum"].get_output(0).name
    assert tuple(last.get_input(0).shape) == (2, 5, 3)
