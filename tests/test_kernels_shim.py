"""The .cu files, built by g++ with one fiber per CUDA thread, against their NumPy references."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    TYPES,
    Case,
    check_finish,
    check_prepare,
    check_reduce,
    check_step,
    draw,
    filled,
    host,
    step,
)
from shim import COMPILER, SHIM, ShimDevice

from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.kernels import finish, guided_step, prepare, reduce
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import SHARED_LIMIT, Kernel, scalar_define
from mpi_fast.kernels.solvers import FINAL
from mpi_fast.kernels.table import STEP, consensus_table, step_table
from mpi_fast.schedule import VE, VP

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")

TABLES = {
    **{name: step_table(name, VP(), 3) for name in ("dpm", "heun", "euler-maruyama", "predictor-corrector")},
    "consensus": consensus_table(8, (19, 19)),
}
SMALL_GRIDS = st.tuples(st.integers(1, 12), st.integers(1, 12))
GRIDS = st.one_of(st.just((19, 19)), SMALL_GRIDS, st.just((28, 30)))
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def shim(folder):
    return ShimDevice(folder)


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
@given(st.integers(1, 70), GRIDS, st.integers(1, 361), st.integers(5, 600), st.sampled_from([*TYPES]), st.booleans())
@example(70, (19, 19), 361, 2451, "float32", False)
@example(2, (1, 1), 1, 5, "float32", False)
def test_prepare(device, frames, grid, rank, rows, scalar, channels_last):
    check_prepare(device, Case(frames, 1, grid, rank, rows, rank), scalar, channels_last)


@quick
@given(st.integers(1, 70), st.integers(1, 16), GRIDS)
@example(70, 16, (19, 19))
def test_finish(device, frames, samples, grid):
    check_finish(device, Case(frames, samples, grid))


@settings(quick, max_examples=24)
@given(
    st.integers(1, 6),
    st.integers(1, 16),
    GRIDS,
    st.integers(1, 361),
    st.sampled_from([(name, number) for name, table in TABLES.items() for number in range(len(table))]),
    st.sampled_from([*TYPES]),
    st.booleans(),
    st.sampled_from([None, 1, 2, 4]),
)
@example(70, 2, (19, 19), 361, ("dpm", 2), "float32", False, None)
@example(1, 1, (1, 1), 1, ("heun", 1), "float32", False, 4)
@example(1, 5, (28, 30), 361, ("predictor-corrector", 1), "float16", True, 2)
@example(3, 1, (19, 19), 150, ("consensus", 0), "float32", False, None)
@example(70, 1, (19, 19), 361, ("consensus", 6), "float32", False, None)
@example(3, 1, (7, 13), 40, ("consensus", 2), "float16", True, None)
@example(3, 1, (7, 13), 40, ("consensus", 8), "bfloat16", True, None)
def test_guided_step(device, frames, samples, grid, rank, row, scalar, channels_last, group):
    case = Case(frames, samples, grid, rank, rows=190, seed=samples)
    if group and guided_step.shared_bytes(group, case.voxels, rank) > SHARED_LIMIT:
        group = None
    table = consensus_table(8, case.grid) if row[0] == "consensus" else TABLES[row[0]]
    check_step(device, case, table, row[1], scalar, channels_last, group)


@pytest.mark.parametrize("guidance", ["gradient", "none"])
def test_other_guidance(device, guidance):
    table = step_table("dpm", VE(), 3, guidance, strength=0.8)
    for number in (1, 2, len(table) - 1):
        check_step(device, Case(rows=300), table, number)


def run_steps(device, case, group, samples_of=slice(None), frames_of=slice(None)):
    """State after one step of some of the frames of a case."""
    calibration, table = case.calibration(), TABLES["predictor-corrector"]
    likelihood, rng = case.likelihood(calibration), np.random.default_rng(0)
    arrays = rng.standard_normal((3, case.frames, case.samples, case.voxels)).astype(np.float32)[:, frames_of]
    part = type(likelihood)(
        likelihood.y[frames_of], likelihood.singular_values, likelihood.basis, likelihood.noise[frames_of]
    )
    case = Case(len(part.y), case.samples, case.grid, case.rank, case.rows, case.seed)
    state = step(device, case, calibration, part, table, 1, *arrays, "float32", False, group)
    return [host(a).reshape(case.frames, case.samples, -1) for a in (state.x, state.saved, state.image)]


def test_results_depend_neither_on_the_batch_nor_on_the_blocks(device):
    case = Case(frames=5, samples=6, rank=70)
    whole = run_steps(device, case, 4)
    for group, frames in ((1, slice(None)), (2, slice(None)), (None, slice(1, 2)), (4, slice(3, 5))):
        for found, expected in zip(run_steps(device, case, group, frames_of=frames), whole, strict=True):
            np.testing.assert_array_equal(found, expected[frames])


@pytest.mark.parametrize("grid", [(19, 19), (6, 9)])
def test_results_do_not_depend_on_the_order_of_threads(folder, device, grid):
    """Between two barriers threads may run in any order: a missing barrier shows as another result."""
    reverse = ShimDevice(folder, backwards=True)
    case = Case(frames=3, samples=5, grid=grid, rank=40, rows=700)
    for found, expected in zip(run_steps(reverse, case, 2), run_steps(device, case, 2), strict=True):
        np.testing.assert_array_equal(found, expected)
    for check in (check_reduce, check_prepare, check_finish):
        check(reverse, case)


def test_sixteen_bit_numbers_are_converted_as_numpy_does(device):
    """All of them on the way in; on the way out random floats of every exponent, ties, and what overflows."""
    case = Case(frames=12, samples=16, rank=3)
    calibration, count = case.calibration(), 12 * 16 * 361
    likelihood = case.likelihood(calibration)
    rng = np.random.default_rng(0)
    table = np.zeros(2, dtype=STEP)
    table["x_from_denoised"] = FINAL.denoised
    patterns = np.arange(count, dtype=np.uint32).astype(np.uint16)
    floats = np.ldexp(rng.uniform(-2, 2, count), rng.integers(-30, 20, count)).astype(np.float32)
    bits, ties = floats.view(np.uint32), 1 << 14  # half-way between two numbers: of float16, and of bfloat16
    bits[:ties] = patterns[:ties].view(np.float16).astype(np.float32).view(np.uint32) + 0x1000
    bits[ties : 2 * ties] = (bits[ties : 2 * ties] & 0xFFFF0000) | 0x8000
    nothing = np.zeros((12, 16, 361), dtype=np.float32)
    for scalar in ("float16", "bfloat16"):
        numbers = patterns.view(TYPES[scalar])
        numbers = np.where(np.abs(numbers.astype(np.float32)) < 1e30, numbers, TYPES[scalar].type(0))  # also no NaN
        numbers = numbers.reshape(12, 16, 361)
        state = step(device, case, calibration, likelihood, table, 1, numbers, nothing, nothing, scalar, False, 1)
        np.testing.assert_array_equal(host(state.x), numbers.astype(np.float32))

    table = np.zeros(2, dtype=STEP)
    table["x_from_x"], table["spread"] = 1, 1
    for scalar in ("float16", "bfloat16"):
        state = step(
            device, case, calibration, likelihood, table, 1, nothing.astype(TYPES[scalar]), floats.reshape(12, 16, 361),
            nothing, scalar, False, 1,
        )  # fmt: skip
        with np.errstate(over="ignore"):
            expected = floats.astype(TYPES[scalar]).reshape(-1, 361)
        found = host(state.image)[:, 2].view(TYPES[scalar])
        np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


def test_broken_signals_show(device):
    """NaN in one frame makes that frame's image NaN, not black, and no other's."""
    x = np.random.default_rng(0).standard_normal((3, 4, 361)).astype(np.float32)
    x[1, 2, 5] = np.nan
    image, deviation = (device.empty((3, 361), np.float32) for _ in range(2))
    statistics = filled(device, np.ones((7, 3), np.float32))
    agreed = np.ones((2, 3, 361), np.float32)
    agreed[1, 1, 5] = np.nan
    for signals, known in ((x, None), (x, agreed[0]), (np.nan_to_num(x), agreed[1])):
        about = None if known is None else filled(device, known)
        finish.finish(device, filled(device, signals), statistics, agreed=about, image=image, deviation=deviation)
        for found in (image, deviation):
            assert np.isnan(found[1, 5])
            assert np.isnan(found).sum() == 1
    y, energy = np.ones((2, 150)), np.full(2, 1e4)
    y[1, 3] = energy[1] = np.nan
    calibration = Case().calibration()
    outputs = [device.empty(shape, np.float32) for shape in ((2, 150), (7, 2), (2, CONDITION_CHANNELS, 361))]
    prepare.prepare(
        device, prepare.Basis.upload(calibration, device), filled(device, y), filled(device, energy), *outputs
    )
    means = outputs[2][:, 0]
    assert np.isfinite(means[0]).all()
    assert np.isnan(means[1]).all()


def test_noise_is_that_of_the_cpu(device):
    case, table = Case(frames=2, samples=5), step_table("euler-maruyama", VE(), 3)
    calibration = case.calibration()
    nothing = np.zeros((2, 5, 361), np.float32)
    state = step(
        device,
        case,
        calibration,
        case.likelihood(calibration),
        table,
        0,
        nothing,
        nothing,
        nothing,
        "float32",
        False,
        2,
    )
    expected = 10 * draw(11, 5, 0, case.voxels)
    np.testing.assert_allclose(host(state.x), np.stack([expected, expected]), atol=2e-5)


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
        ("signals", np.zeros((4, 3, 30), np.complex64)),
        ("y", np.zeros((4, 20), np.float32)),
        ("energy", np.zeros(5)),
    ):
        with pytest.raises(InputError, match=f"reduce: {name} is .*expected"):
            reduce.reduce(device, projection, **{**good, name: wrong})
    with pytest.raises(InputError, match="at least one frame"):
        reduce.reduce(device, projection, np.zeros((0, 30), np.complex64), np.zeros((0, 20)), np.zeros(0))


def test_steps_that_are_not_there_are_refused(device):
    case, table = Case(frames=1, samples=1, rank=5, rows=20), TABLES["dpm"]
    calibration = case.calibration()
    arrays = [np.zeros((1, 1, 361), np.float32)] * 3
    with pytest.raises(InputError, match="row 5 of a table of 5"):
        step(device, case, calibration, case.likelihood(calibration), table, 5, *arrays, "float32", False, 1)
    with pytest.raises(InputError, match="float64"):
        scalar_define("float64")


def test_a_grid_too_large_for_shared_memory_is_refused():
    with pytest.raises(InputError, match=r"10000 voxels and rank 300 need .* shared memory"):
        guided_step.group_of(1, 1, 10_000, 300, 100)


def test_blocks_take_fewer_samples_where_frames_are_few():
    groups = [guided_step.group_of(frames, 8, 361, 150, 132) for frames in (1, 16, 17, 33, 64, 66, 500)]
    assert groups == [1, 1, 1, 2, 2, 4, 4]
    assert [guided_step.group_of(500, samples, 361, 150, 132) for samples in (1, 2, 3)] == [1, 2, 4]
    assert guided_step.group_of(500, 8, 1600, 700, 132) < 4  # four do not fit


def test_without_cupy_or_a_gpu_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MPIFastError, match=r"pip install 'mpi-fast\[gpu\]'"):
        CupyDevice()
    absent = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "cupy", absent)
    with pytest.raises(MPIFastError, match="no CUDA device"):
        CupyDevice()


def test_importing_the_launchers_is_free_of_cupy():
    code = "import sys, mpi_fast.kernels.loop, mpi_fast.kernels.compile; assert not {'cupy', 'cuda'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIM.parents[1])


# ---- the shim itself: what it is there to find, it finds -------------------------------------------------------------


def broken(folder, body, **options):
    """A device that knows one kernel more, ``broken`` (float* out), of 64 threads."""
    sources = folder / "broken"
    sources.mkdir(exist_ok=True)
    (sources / "broken.cu").write_text(
        'extern "C" __global__ void broken(float* out) { extern __shared__ float4 shared[]; '
        f"float* cell = reinterpret_cast<float*>(shared); const int i = threadIdx.x; {body} }}"
    )
    return ShimDevice(folder, sources=sources, **options)


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
    """In the layout of PTX; two warps at once, each with matrices of its own."""
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


def test_kernels_pass_the_sanitizers(folder):
    done = sanitized(str(Path(__file__).parent / "kernel_cases.py"), "--shim", str(folder))
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
