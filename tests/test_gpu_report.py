"""The report of the GPU benchmarks, on made-up times: what it says of whom, and what becomes of what is missing."""

import builtins
import json
import sys

import gpu_report
import numpy as np
import pytest
import tradeoff

from mpi_fast.pipelines import Frames, Sampling


def benchmark(sampling, device):
    """As pytest-benchmark writes one."""
    chosen = {name: getattr(sampling, name) for name in tradeoff.SWEEPS}
    quality = {"psnr_db": 30.0, "psnr_error": 0.5, "coverage_95": 0.9, "frames": 7}
    runs_on = "PyTorch, fp16 on a card" if device == "cuda" else "a CPU"
    return {
        "group": tradeoff.GROUP,
        "name": "test_tradeoff",
        "param": tradeoff.title(sampling),
        "stats": {"data": [1e-3 * sampling.steps] * 3},
        "extra_info": {**chosen, **quality, "device": device, "runs_on": runs_on},
    }


def report(folder, monkeypatch, device="cpu"):
    """Files of a report on every setting, and on a run that was interrupted before it had measured anything."""
    measured = [benchmark(one, device) for one in tradeoff.settings()]
    (folder / "one.json").write_text(json.dumps({"benchmarks": measured}))
    (folder / "none.json").write_text("")
    given = [str(folder / f"{name}.json") for name in ("one", "none", "missing")]
    monkeypatch.setattr(sys, "argv", ["gpu_report", *given, "-o", str(folder / "out")])
    gpu_report.main()
    return {file.name: file for file in (folder / "out").iterdir()}


def test_every_setting_once_and_the_default_on_every_curve():
    settings = tradeoff.settings()
    assert len(set(settings)) == len(settings)
    rows = [gpu_report.summary(benchmark(one, "cpu")) for one in settings]
    for sweep, values in tradeoff.SWEEPS.items():
        found = [row[sweep] for row in tradeoff.curve(rows, sweep)]
        assert found == sorted({*values, getattr(Sampling(), sweep)})


def test_a_rehearsal_says_that_it_is_one(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    files = report(tmp_path, monkeypatch)
    assert sorted(files) == ["rehearsal.json", "rehearsal.md", "rehearsal.png"]
    text = files["rehearsal.md"].read_text()
    assert text.startswith("# no GPU: rehearsed on a CPU")
    assert "Measured on a CPU:" in text
    assert "| 20 | 20 | 20 | 30.00 ± 0.50 | 90.0 % |" in text
    assert "SKIPPED: none.json: nothing was measured" in capsys.readouterr().out


def test_a_gpu_gives_the_files_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "gpu", lambda: {"gpu": "Some Card 1", "driver": "1.2"})
    files = report(tmp_path, monkeypatch, "cuda")
    assert {"gpu-some-card-1.json", "gpu-some-card-1.md"} <= files.keys()
    assert "Measured on PyTorch, fp16 on a card:" in files["gpu-some-card-1.md"].read_text()


def test_without_matplotlib_the_tables_are_written_and_the_picture_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    original = builtins.__import__

    def refuse(name, *arguments, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert sorted(report(tmp_path, monkeypatch)) == ["rehearsal.json", "rehearsal.md"]
    assert "SKIPPED: the picture" in capsys.readouterr().out


def test_frames_are_judged_one_at_a_time():
    truth = np.random.default_rng(0).uniform(size=(3, 4, 5)).astype(np.float32)
    calls = []

    def pipeline(rows):
        calls.append(len(rows))
        index = int(rows[0, 0].real)
        return Frames(truth[index].reshape(1, -1) + 0.1, np.full((1, 20), 0.2), np.zeros(1), np.zeros(1))

    found = tradeoff.judge(pipeline, np.arange(3, dtype=np.complex64)[:, None], truth, np.ones((4, 5), bool))
    assert calls == [1, 1, 1]
    assert found["coverage_95"] == 1.0
    assert found["psnr_db"] == pytest.approx(np.mean(20 * np.log10(truth.max((1, 2)) / 0.1)), abs=1e-3)
