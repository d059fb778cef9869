"""bench/large_volume.py and bench/volume_frame.py, with small volumes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import large_volume
import pytest
import volume_frame

from mpi_fast.calibration import Calibration
from mpi_fast.simulation import Scanner

GRID = 6, 6, 6


def test_every_stage_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    scanner = Scanner.volume(grid=GRID, voxel_size=(3e-3, 6e-3, 6e-3), dividers=(16, 15, 12), sub_voxels=1)
    monkeypatch.setattr(large_volume, "VOLUME", replace(large_volume.VOLUME, scanner=scanner))
    large_volume.simulate(GRID, 60, tmp_path)
    report = tmp_path / "report.json"
    options = "--grid", "6x6x6", "--rows", "60", "--folder", str(tmp_path), "--json", str(report)
    monkeypatch.setattr(sys, "argv", ["large_volume.py", *options])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the script also sets it, so it must be restored
    large_volume.main()
    stages = json.loads(report.read_text())["stages"]
    assert [one["stage"] for one in stages] == ["calibrate", "info", "reconstruct one frame"]  # the matrix existed
    assert all(one["wall_s"] > 0 and one["cpu_s"] > 0.1 and 0.03 < one["peak_gib"] < 4 for one in stages)
    assert Calibration.load(tmp_path / "scanner.h5").grid == GRID
    assert (tmp_path / "measurement.reco.mdf").is_file()
    assert capsys.readouterr().out.count("GiB |") == 3


def test_memory_is_the_most_that_a_process_held():
    """Measured from a separate process, because the kernel counts the memory of the starting process."""
    script = "import large_volume as v; print(v.measured('x', ['-c', {!r}]).peak_gib)"
    work = "pass", "bytearray(512 << 20).find(1)"
    bench, python = Path(large_volume.__file__).parent, (sys.executable, "-c")
    told = [subprocess.run([*python, script.format(one)], cwd=bench, capture_output=True, check=True) for one in work]
    idle, busy = (float(one.stdout.split()[-1]) for one in told)
    assert busy == pytest.approx(0.51, abs=0.02)
    assert idle < 0.4  # at least the memory of the process that started it


def test_a_stage_that_fails_ends_it():
    with pytest.raises(SystemExit, match="calibrate: failed with 3"):
        large_volume.measured("calibrate", ["-c", "raise SystemExit(3)"])


def test_frames_are_timed_by_the_clock_and_by_processors(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    sizes = "--grid", "5x6x7", "--rank", "20", "--rows", "40", "--frames", "3", "--threads", "1"
    monkeypatch.setattr(sys, "argv", ["volume_frame.py", *sizes, "--json", str(report)])
    volume_frame.main()
    found = json.loads(report.read_text())
    assert 0 < found["wall_ms"]["best"] <= found["wall_ms"]["median"]
    assert 0 < found["cpu_ms"]["best"] <= found["cpu_ms"]["median"]
    assert "of 3 frames" in capsys.readouterr().out


def test_a_made_up_calibration_is_one():
    calibration = volume_frame.synthetic_calibration((5, 6, 7), 20, 40)
    y = calibration.singular_values[None] * 1.0
    rows = (y @ calibration.projection).conj().astype("complex64")
    assert calibration.reduce(rows).y == pytest.approx(y, rel=1e-4)
