"""Comparison of the .cu files, built by g++ with one fiber per CUDA thread, with their NumPy references."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_cases import Case, check_prepare, check_reduce, check_update, filled
from shim import COMPILER, SHIM, SOURCES, ShimDevice

from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.kernels import prepare, reduce
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import Kernel

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")

SMALL_GRIDS = st.tuples(st.integers(1, 12), st.integers(1, 12))
GRIDS = st.one_of(st.just((19, 19)), SMALL_GRIDS, st.just((28, 30)))
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def shim(kernel_folder):
    return ShimDevice(kernel_folder)


@pytest.fixture
def device(shim):
    yield shim
    shim.check_guards()


@quick
@given(st.integers(1, 70), st.integers(1, 361), st.integers(1, 2451), st.integers(0, 99))
@example(70, 361, 2451, 0)
@example(1, 1, 1, 0)
@example(5, 8, 512, 0)
def test_reduce(device, frames, rank, rows, seed):
    check_reduce(device, Case(frames, 1, (19, 19), rank, rows, seed))


@quick
@given(st.integers(1, 70), GRIDS, st.integers(1, 361), st.integers(5, 600))
@example(70, (19, 19), 361, 2451)
@example(2, (1, 1), 1, 5)
def test_prepare(device, frames, grid, rank, rows):
    check_prepare(device, Case(frames, 1, grid, rank, rows, rank))


@pytest.mark.parametrize("grid", [(19, 19), (6, 9)])
def test_results_do_not_depend_on_the_order_of_threads(kernel_folder, grid):
    """Threads may run in any order between two barriers, so a missing barrier changes the result."""
    reverse = ShimDevice(kernel_folder, backwards=True)
    for check in (check_reduce, check_prepare, check_update):
        check(reverse, Case(frames=3, samples=5, grid=grid, rank=40, rows=700))


def test_float16_is_rounded_as_numpy_does(tmp_path):
    """Random floats of every exponent, floats half-way between two float16 numbers, overflows, and NaN."""
    rng, count = np.random.default_rng(0), 1 << 16
    floats = np.ldexp(rng.uniform(-2, 2, 2 * count), rng.integers(-30, 20, 2 * count)).astype(np.float32)
    floats[:count] = np.arange(count, dtype=np.uint16).view(np.float16)
    floats[: count // 4].view(np.uint32)[:] += 0x1000
    given = np.concatenate([np.zeros(count, np.float32), floats])
    header = SOURCES / "convolution.cuh"
    body = (
        f"cell[0] = 0; const float* in = out + {count}; for (int k = i; k < {count}; k += 64)"
        "out[k] = __uint_as_float(pair_of(in[2 * k], in[2 * k + 1]));"
    )
    broken(tmp_path, body, header).launch(Kernel("broken"), (1, 1), 64, 4, (given,))
    with np.errstate(over="ignore"):
        expected = floats.astype(np.float16)
    found, number = given[:count].view(np.float16), ~np.isnan(expected)
    np.testing.assert_array_equal(found[number].view(np.uint16), expected[number].view(np.uint16))
    assert np.isnan(found[~number]).all()


def test_broken_signals_show(device):
    """NaN in one frame makes its own results NaN, and no others."""
    y, energy = np.ones((2, 150)), np.full(2, 1e4)
    y[1, 3] = energy[1] = np.nan
    calibration = Case().calibration()
    outputs = [device.empty(shape, np.float32) for shape in ((2, 150), (5, 2), (2, prepare.CONDITION_CHANNELS, 361))]
    basis = prepare.Basis.upload(calibration, device)
    prepare.prepare(device, basis, filled(device, y), filled(device, energy), *outputs)
    means = outputs[2][:, 0]
    assert np.isfinite(means[0]).all()
    assert np.isnan(means[1]).all()


# ---- what the launchers refuse ---------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused(device):
    projection = reduce.Projection.upload(Case(rows=30, rank=20).calibration(), device)
    good = {
        "signals": np.zeros((4, 30), np.complex64), "y": np.zeros((4, 20)), "energy": np.zeros(4),
    }  # fmt: skip
    for name, wrong in (
        ("signals", np.zeros((4, 31), np.complex64)),
        ("signals", np.zeros((4, 30), np.complex128)),
        ("signals", np.zeros((30, 4), np.complex64).T),
        ("y", np.zeros((4, 20), np.float32)),
        ("energy", np.zeros(5)),
    ):
        with pytest.raises(InputError, match=f"reduce: {name} is .*expected"):
            reduce.reduce(device, projection, **{**good, name: wrong})
    with pytest.raises(InputError, match="at least one frame"):
        reduce.reduce(device, projection, np.zeros((0, 30), np.complex64), np.zeros((0, 20)), np.zeros(0))


def test_without_cupy_or_a_gpu_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MPIFastError, match=r"pip install 'mpi-fast\[gpu\]'"):
        CupyDevice()
    absent = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "cupy", absent)
    with pytest.raises(MPIFastError, match="no CUDA device"):
        CupyDevice()


def test_importing_the_launchers_is_free_of_cupy():
    modules = "mpi_fast.kernels.sampling, mpi_fast.kernels.compile"
    code = f"import sys, {modules}; assert not {{'cupy', 'cuda'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIM.parents[1])


# ---- the shim itself: what it is there to find, it finds -------------------------------------------------------------


def broken(kernel_folder, body, header="cuda_shim.h", **options):
    """A device with one kernel, ``broken`` (float* out), of 64 threads."""
    sources = kernel_folder / "broken"
    sources.mkdir(exist_ok=True)
    (sources / "broken.cu").write_text(
        f'#include "{header}"\n'
        'extern "C" __global__ void broken(float* out) { extern __shared__ float4 shared[]; '
        f"float* cell = reinterpret_cast<float*>(shared); const int i = threadIdx.x; {body} }}"
    )
    return ShimDevice(kernel_folder, sources=sources, **options)


def test_a_divergent_barrier_is_found(tmp_path):
    device = broken(tmp_path, "if (i) __syncthreads(); out[i] = cell[0] = 0;")
    with pytest.raises(RuntimeError, match="divergent barrier"):
        device.launch(Kernel("broken"), (1, 1), 64, 4, (np.zeros(64, np.float32),))


def test_a_product_that_some_lanes_miss_is_found(tmp_path):
    lanes = "float d[4] = {}; const unsigned a[4] = {}, b[2] = {}; if (i % 2) mma_16x8x16(d, a, b);"
    device = broken(tmp_path, f"{lanes} out[i] = cell[0] = d[0];")
    with pytest.raises(RuntimeError, match="divergent warp"):
        device.launch(Kernel("broken"), (1, 1), 64, 4, (np.zeros(64, np.float32),))


def test_a_warp_multiplies_matrices(tmp_path):
    """In the layout of PTX, with two warps at once, each with its own matrices."""
    device = broken(
        tmp_path,
        "const unsigned* given = reinterpret_cast<const unsigned*>(out) + 256; cell[0] = 0;"
        "float d[4] = {}; unsigned a[4], b[2];"
        "for (int k = 0; k < 4; ++k) a[k] = given[i * 6 + k]; for (int k = 0; k < 2; ++k) b[k] = given[i * 6 + 4 + k];"
        "mma_16x8x16(d, a, b); for (int k = 0; k < 4; ++k) out[i * 4 + k] = d[k];",
    )
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(shape).astype(np.float16) for shape in ((2, 16, 16), (2, 16, 8)))
    lane, register = np.arange(32)[:, None], np.arange(4)
    row, pair = lane // 4 + 8 * (register % 2), lane % 4 * 2 + 8 * (register // 2)
    a = np.stack([left[:, row, pair], left[:, row, pair + 1]], axis=-1)
    pair, column = lane % 4 * 2 + 8 * np.arange(2), lane // 4 + 0 * np.arange(2)
    b = np.stack([right[:, pair, column], right[:, pair + 1, column]], axis=-1)
    given = np.concatenate([a, b], axis=2).reshape(-1).view(np.float32)
    out = np.concatenate([np.zeros(256, np.float32), given])
    device.launch(Kernel("broken"), (1, 1), 64, 4, (out,))
    found = out[:256].reshape(2, 32, 4)
    row, column = lane // 4 + 8 * (register // 2), lane % 4 * 2 + register % 2
    expected = left.astype(np.float32) @ right.astype(np.float32)
    np.testing.assert_allclose(found, expected[:, row, column], atol=1e-5)


def test_a_missing_barrier_is_found(tmp_path):
    results = []
    for backwards in (False, True):
        device = broken(tmp_path, "cell[i] = i; out[i] = cell[(i + 1) % 64];", backwards=backwards)
        results.append(np.zeros(64, np.float32))
        device.launch(Kernel("broken"), (1, 1), 64, 256, (results[-1],))
    assert np.isnan(results[0][0])  # thread 0 read what thread 1 had not written
    assert not np.array_equal(*results, equal_nan=True)


def test_a_write_outside_an_array_is_found(tmp_path):
    device = broken(tmp_path, "out[i + 1] = 0; cell[0] = 0;")
    device.launch(Kernel("broken"), (1, 1), 64, 4, (device.empty((64,), np.float32),))
    with pytest.raises(AssertionError, match="outside"):
        device.check_guards()


def sanitized(*command):
    """Run Python with the address sanitizer loaded before anything else."""
    library = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": os.pathsep.join([str(SHIM.parent), str(SHIM.parents[1])]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_kernels_pass_the_sanitizers(kernel_folder):
    done = sanitized(str(Path(__file__).parent / "kernel_cases.py"), "--shim", str(kernel_folder))
    assert done.returncode == 0, done.stderr
    assert "agree" in done.stdout


@pytest.mark.parametrize(
    ("body", "report"),
    [
        ("cell[0] = 0; out[i + 64] = 0;", "heap-buffer-overflow"),
        ("out[i] = 0; cell[i + 1] = 0;", "use-after-poison"),
        ("out[i] = (float)(i + 0x7fffffff); cell[0] = 0;", "signed integer overflow"),
    ],
)
def test_the_sanitizers_find(tmp_path, body, report):
    broken(tmp_path, body)
    program = (
        "import numpy as np; from shim import ShimDevice; from mpi_fast.kernels.launch import Kernel; "
        f"from pathlib import Path; folder = Path({str(tmp_path)!r}); "
        "device = ShimDevice(folder, sanitized=True, sources=folder / 'broken'); "
        "device.launch(Kernel('broken'), (1, 1), 64, 256, (device.upload(np.zeros(64, np.float32)),))"
    )
    done = sanitized("-c", program)
    assert done.returncode != 0
    assert report in done.stderr
