"""The report of the GPU benchmarks, with invented times, and with missing files."""

import json
import sys

import gpu_report
import pytest


def benchmark(group, name, milliseconds, **extra):
    """A benchmark in the form of pytest-benchmark."""
    stats = {"data": [1e-3 * milliseconds] * 3}
    return {"group": group, "name": "test", "param": name, "stats": stats, "extra_info": extra}


LATENCY = "latency of one frame"
MEASURED = [
    benchmark(LATENCY, "one CUDA graph of our kernels", 0.5, captured=True, nodes=144),
    benchmark(LATENCY, "PyTorch, eager, fp16", 20.0),
    benchmark(LATENCY, "ONNX Runtime on the GPU, fp32", 1.5),
    benchmark("latency of one volume of some voxels", "one CUDA graph of our kernels", 2.0),
    benchmark("latency of one volume of some voxels", "ONNX Runtime on the GPU, fp32", 5.0),
    benchmark("throughput", "64", 2.0, frames_per_second=32_000.0),
]


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Makes a report of given benchmarks, an empty file of an interrupted run, and a missing file."""

    def made(measured):
        (tmp_path / "one.json").write_text(json.dumps({"benchmarks": measured}))
        (tmp_path / "none.json").write_text("")
        given = [str(tmp_path / f"{name}.json") for name in ("one", "none", "missing")]
        monkeypatch.setattr(gpu_report, "gpu", lambda: {"gpu": "Some Card 1", "driver": "1.2"})
        monkeypatch.setattr(sys, "argv", ["gpu_report", *given, "-o", str(tmp_path / "out")])
        gpu_report.main()
        return {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}

    return made


def test_files_have_the_name_of_the_gpu_and_say_who_takes_how_much_longer(report, capsys):
    files = report(MEASURED)
    assert sorted(files) == ["gpu-some-card-1.json", "gpu-some-card-1.md"]
    text = files["gpu-some-card-1.md"]
    assert text.startswith("# Some Card 1\n\ndriver 1.2, date ")
    assert "| one CUDA graph of our kernels | 0.5 | 0.5 | 0.5 | 0.5 | 3 | nodes 144 |" in text
    assert "Best latency 0.500 ms" in text
    assert "PyTorch, eager, fp16: 40.0 times as long, in the same run." in text
    assert "ONNX Runtime on the GPU, fp32: 3.0 times as long, in the same run." in text
    assert "Best latency of a volume 2.000 ms (the scanner's own frame period: 21.5 ms)." in text
    assert "ONNX Runtime on the GPU, fp32: 2.5 times as long, in the same run." in text
    assert text.endswith("Best throughput: 32000 frames/s.\n")
    assert json.loads(files["gpu-some-card-1.json"])["rows"][0]["captured"]
    assert "SKIPPED: none.json: nothing was measured" in capsys.readouterr().out


def test_without_our_own_latency_nothing_is_compared(report):
    text = report(MEASURED[1:3])["gpu-some-card-1.md"]
    assert "times as long" not in text
    assert "Best" not in text


def test_without_any_figure_there_is_no_report(report):
    with pytest.raises(SystemExit, match="nothing was measured"):
        report([])
