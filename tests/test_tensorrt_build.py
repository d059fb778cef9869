"""TensorRT engines are built without a GPU: every artefact, for every RTX capability, with its facts, only once."""

import importlib
import json
import re
import signal
import types

import onnx
import pytest
import typer
from bindings import bindings
from tensorrt_graphs import REFUSED, build, bundle_of, quiet
from typer.testing import CliRunner

from mpi_fast import tensorrt_library
from mpi_fast.bundle import FROZEN, half_name
from mpi_fast.cli import app
from mpi_fast.errors import ModelError
from mpi_fast.export.preflight import builder, parse, preflight
from mpi_fast.limits import EVALUATIONS

pytestmark = pytest.mark.usefixtures("cache")
command = importlib.import_module("mpi_fast.export.__main__")
BATCHES = (1, 4)
HALVED = half_name(FROZEN)
BLOCKS = 3  # blocks of the network in `exported`
CAPABILITIES = (75, 80, 86, 89, 120)


@pytest.fixture(scope="module")
def contents(exported):
    """All graphs from which engines are built, for a small network and scanner."""
    return {name: exported.read(name) for name in (FROZEN, HALVED)}


def profiles(log, name):
    """(smallest, best, largest) shape of an input in each profile, from TensorRT's log of the finished engine."""
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
    """Profiles are valid from one frame to the batch; larger ones need more scratch memory; TF32 is as requested."""
    facts, plan, log = build.build_engine(rtx, FROZEN, contents[FROZEN], 89, (1, 8, 64), False, quiet)
    assert not facts.tf32
    assert len(plan) > 1000
    assert facts.workspace == tuple(sorted(facts.workspace))
    model = onnx.load_from_string(contents[FROZEN])
    rows = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert [largest for _, _, largest in profiles(log, "real")] == [[1, rows], [8, rows], [64, rows]]


def test_layers_have_the_precision_of_the_graph(rtx, contents):
    """Convolutions have half precision, except the last of each block; matrix products, inputs and outputs do not."""
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
    """TensorRT-RTX has no float32 products for compute capability 7.5; only there sums replace them."""
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
    (cache / "tensorrt" / f"{first[0].key}.engine").write_bytes(b"damaged")
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


def test_nothing_is_refused_of_ours(rtx, contents):
    assert all(preflight(rtx, content) == [] for content in contents.values())


def test_an_interrupt_ends_the_build(rtx, contents):
    """Ctrl-C also ends the build in a callback, where the bindings would print and ignore an exception."""

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build.build_engine(rtx, FROZEN, contents[FROZEN], 89, (1,), True, interrupt)
    assert signal.getsignal(signal.SIGINT) is before


class Recording:
    """An object of the bindings that records the attributes read from it and from all objects that it returns."""

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
    """Every attribute that a build uses is also in the other package's bindings, except those for RTX only."""
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
