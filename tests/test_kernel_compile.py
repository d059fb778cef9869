"""Kernels compile for every architecture without a GPU, within limits of registers and shared memory."""

import itertools

import pytest

from mpi_fast.errors import MPIFastError
from mpi_fast.kernels import compile as compiling
from mpi_fast.kernels import prepare, reduce
from mpi_fast.kernels.combine_volumes import TOGETHER
from mpi_fast.kernels.compile import cached, compile_kernel
from mpi_fast.kernels.launch import Kernel
from mpi_fast.kernels.tiles import COARSE, FINE

pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings and NVRTC")

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
REGISTERS = 65536  # registers of a multiprocessor, on all these architectures
THREADS = {"reduce": 256, "prepare": 768, "plan": 512, "project": 256, "fine": 256, "coarse": 256}
THREADS |= {"image": 128, "update": 128, "refine": 256}
THREADS |= {"white": 256, "variances": 256, "current": 128, "residual": 256, "changes": 256, "tails": 32}
BLOCKS = {"reduce": 3, "prepare": 1, "plan": 1, "project": 4, "fine": 4, "coarse": 2}  # at least, at once on one
BLOCKS |= {"image": 8, "update": 8, "refine": 6}
FEWER = {("fine", "sm_120"): 3}  # 100 KB of shared memory are enough for three
BLOCKS |= {"white": 3, "variances": 2, "current": 8, "residual": 2, "changes": 4, "tails": 16}

SIGNALS = reduce.KERNEL, prepare.KERNEL
TILES = [Kernel(name, (("TILE", str(side)),)) for name, sides in (("fine", FINE), ("coarse", COARSE)) for side in sides]
SHARED = [Kernel(name, (("FRAMES", str(frames)),)) for name in ("residual", "changes") for frames in TOGETHER]
OTHERS = [Kernel(name) for name in ("plan", "project", "image", "update", "refine", "variances", "current", "tails")]
OTHERS += [prepare.WHITE, *SHARED]
CASES = [
    *itertools.product([*SIGNALS, *OTHERS, *TILES[:1]], ARCHITECTURES),
    *itertools.product(TILES[1:], ("sm_75", "sm_90")),
]


@pytest.mark.parametrize(
    ("kernel", "architecture"), CASES, ids=lambda value: value if isinstance(value, str) else value.name
)
def test_every_kernel_compiles_within_its_budget(kernel, architecture):
    compiled = compile_kernel(kernel, architecture)
    assert compiled.code[:4] == b"\x7fELF"
    assert compiled.stack == compiled.spills == 0, "nothing of a thread may go through memory"
    per_warp = 32 * -(-compiled.registers // 8) * 8  # they are allocated in units of eight for each thread of a warp
    blocks = FEWER.get((kernel.name, architecture), BLOCKS[kernel.name])
    assert THREADS[kernel.name] // 32 * per_warp * blocks <= REGISTERS


def test_what_does_not_compile_says_why(monkeypatch, tmp_path):
    (tmp_path / "broken.cu").write_text("__global__ void broken() { undeclared = 1; }")
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    with pytest.raises(MPIFastError, match=r"broken\.cu for sm_90.*(\n.*)*undeclared"):
        compile_kernel(Kernel("broken"), "sm_90")


def test_the_cache_knows_text_architecture_and_options(monkeypatch, tmp_path):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    first = cached(Kernel("image"), "sm_90")
    assert first.read_bytes()[:4] == b"\x7fELF"
    before = first.stat().st_mtime_ns
    assert cached(Kernel("image"), "sm_90") == first
    assert first.stat().st_mtime_ns == before
    assert cached(Kernel("image"), "sm_89") != first
    assert cached(Kernel("image", (("OTHER", "1"),)), "sm_90") != first
    for path in (compiling.FOLDER / "image.cu", *compiling.FOLDER.glob("*.cuh")):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "device.cuh").write_text((tmp_path / "device.cuh").read_text() + "// changed\n")
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    assert cached(Kernel("image"), "sm_90") != first
