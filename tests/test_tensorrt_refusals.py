"""Graphs, packages and GPUs for which no TensorRT engine is built; sums that replace products."""

import re
import subprocess
import sys

import pytest
from bindings import without_library
from tensorrt_graphs import REFUSED, build, bundle_of, quiet

from mpi_fast import tensorrt_library
from mpi_fast.bundle import FROZEN
from mpi_fast.errors import InputError, ModelError, MPIFastError
from mpi_fast.export.preflight import builder, preflight
from mpi_fast.export.turing import replace_matrix_products

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("what", REFUSED)
def test_preflight(rtx, tmp_path, what):
    content, said = REFUSED[what]
    assert re.search(said, "; ".join(preflight(rtx, content)))
    bundle = bundle_of(tmp_path, {FROZEN: content})
    with pytest.raises(ModelError, match=rf"(?s)would refuse it: frozen\.onnx: .*{said}"):
        build.add_engines(bundle, rtx, [89], (1,), True, quiet)
    assert not (tmp_path / "cache").exists()


def test_parser_errors_name_the_node(rtx):
    with pytest.raises(ModelError, match=r"bad\.onnx: tensorrt_rtx .* refuses it: node adder \(Add\): "):
        build.build_engine(rtx, "bad.onnx", REFUSED["types that do not go together"][0], 89, (1,), True, quiet)


@pytest.fixture
def packages(monkeypatch):
    """Hide both packages, and search for them anew."""
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
    """Its builder is then a null pointer, like that of an empty library."""
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
    with pytest.raises(InputError, match=r"this machine has no GPU .* --sm 89,120"):
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
