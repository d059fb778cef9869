"""Test tensorrt-rtx on the present GPU, whether an RTX card or not: each step, with the messages of TensorRT.

    python bench/tensorrt_rtx_anywhere.py [--json FILE]

NVIDIA lists RTX cards of compute capability 7.5 and from 8.0 to 12.1, and not 9.0 (H100, H200). Every step runs in a
separate process, because an unsupported step may crash it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from by_torch import trained

from mpi_fast.bundle import FROZEN
from mpi_fast.calibration import Calibration
from mpi_fast.export.frame import Frame
from mpi_fast.export.scanner_graph import frozen_graph
from mpi_fast.simulation import Scanner

ROWS = "rows.npy"
BEFORE = f"""
import sys, cupy, numpy as np, onnxruntime, tensorrt_rtx
from pathlib import Path
from mpi_fast import tensorrt_library
from mpi_fast.engines.tensorrt_plan import Plan, bind
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.export import tensorrt as build
folder = Path(sys.argv[1])
trt, here = tensorrt_library.load("tensorrt_rtx"), tensorrt_library.device_capability()
content, silent = (folder / "{FROZEN}").read_bytes(), lambda *_: None
nearest = max(one for one in trt.capabilities() if one <= here)
def made(capability):
    return build.build_engine(trt, "{FROZEN}", content, capability, (1,), False, silent)
"""
STEPS = {
    "GPU": "print(cupy.cuda.runtime.getDeviceProperties(0)['name'].decode(), here, trt.version, trt.capabilities())",
    "build for the present GPU": """
maker = build.builder(trt); network = maker.create_network(); parser, _ = build.parse(trt, network, content)
config = build._config(trt, maker, network, nearest, (1,), False)
config.set_compute_capability(tensorrt_rtx.ComputeCapability.CURRENT, 0)
plan = maker.build_serialized_network(network, config)
print(trt.failure("no engine") if plan is None else f"{plan.nbytes} bytes")
""",
    "validity of an engine for the nearest capability": """
runtime = tensorrt_rtx.Runtime(trt.logger); plan = made(nearest)[1]
print(nearest, *runtime.get_engine_validity(plan))
""",
    "deserialise that engine": "facts, plan, _ = made(nearest); Plan(trt, plan, facts); print('done')",
    "run it, captured": f"""
facts, plan, _ = made(nearest); device = CupyDevice()
buffers, _, run = bind(Plan(trt, plan, facts), 1, device); replay = device.record(run.enqueue)
rows = np.load(folder / "{ROWS}"); given = dict(real=rows.real.copy(), imag=rows.imag.copy())
session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
(reference,) = session.run(["image"], given)
for name, plane in given.items(): device.copy(plane, buffers[name])
replay.launch(); device.wait()
difference = np.abs(buffers["image"].get() - reference).max()
print(f"largest difference from ONNX Runtime: {{difference:.2g}} of {{reference.max():.2g}}")
""",
}


def why_not() -> str | None:
    """The reason why this program cannot run here, or None."""
    try:
        import cupy
        import tensorrt_rtx  # noqa: F401
    except ImportError as error:
        return f"needs CuPy and TensorRT-RTX: pip install 'mpi-fast[gpu,tensorrt-rtx]' ({error})"
    return None if cupy.cuda.is_available() else "needs an NVIDIA GPU, but none was found"


def prepare(folder: Path) -> None:
    """Write the network, frozen for a simulated scanner, and the signals (1, M) of a uniform image."""
    scanner = Scanner()
    matrix, frequencies = scanner.system_matrix(), scanner.frequencies
    calibration = Calibration.from_arrays(matrix, frequencies, scanner.grid, scanner.field_of_view)
    (folder / FROZEN).write_bytes(frozen_graph(Frame(trained()), calibration).content)
    np.save(folder / ROWS, calibration.matrix.sum(axis=1)[None])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if missing := why_not():
        print(f"error: {missing}", file=sys.stderr)
        return 2
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for step, code in STEPS.items():
            command = [sys.executable, "-c", BEFORE + code, folder]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            said = ran.stdout.strip() or (ran.stderr.strip().splitlines() or ["nothing"])[-1]
            found[step] = {"exit": ran.returncode, "said": said}
            print(f"{step}: {said} (exit {ran.returncode})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
