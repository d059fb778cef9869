"""Tables of the measurements on a GPU: ``python bench/gpu_report.py MEASURED.json ... -o bench/results``, or a folder.

Reads the JSON files of pytest-benchmark and writes ``gpu-NAME.json`` and ``gpu-NAME.md``, named after the GPU, with
date, versions, percentiles and ratios.
"""

import argparse
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("mpi-fast", "torch", "cupy-cuda13x", "cupy-cuda12x", "triton", "tensorrt", "tensorrt-rtx", "onnxruntime")
PERIODS = ("latency of one frame", "", 0.653), ("latency of one volume", "of a volume ", 21.5)
OURS, OPPONENTS = "one CUDA graph", ("PyTorch", "ONNX Runtime", "TensorRT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results"))
    options = parser.parse_args()
    files = [one for given in options.measured for one in (sorted(given.glob("*.json")) if given.is_dir() else [given])]
    rows = [summary(one) for file in files for one in content(file)]
    if not rows:
        sys.exit("nothing was measured, so there is no report")
    report = {"machine": versions(gpu()), "rows": rows}
    name = "gpu-" + re.sub(r"[^a-z0-9]+", "-", report["machine"]["gpu"].lower()).strip("-")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(markdown(report))
    print(markdown(report))


def content(file: Path) -> list[dict[str, Any]]:
    """Benchmarks of one file. It is empty or missing if no benchmark was completed."""
    text = file.read_text().strip() if file.exists() else ""
    if not text:
        print(f"SKIPPED: {file.name}: nothing was measured")
    return [one for one in json.loads(text)["benchmarks"] if one["stats"]["data"]] if text else []


def gpu() -> dict[str, str]:
    """Names of GPU and driver, from nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, driver = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0].split(", ")
    return {"gpu": name, "driver": driver}


def versions(found: dict[str, str]) -> dict[str, str]:
    """GPU and driver, today's date, and the versions of the packages in use."""
    found = {**found, "date": datetime.now(UTC).date().isoformat()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def summary(benchmark: dict[str, Any]) -> dict[str, Any]:
    """One line of a table: percentiles in milliseconds over all rounds."""
    seconds = np.array(benchmark["stats"]["data"])
    percentiles = dict(zip(("p50", "p95", "p99"), 1e3 * np.percentile(seconds, [50, 95, 99]), strict=True))
    return {
        "group": benchmark["group"],
        "name": benchmark["param"] or benchmark["name"],
        "rounds": len(seconds),
        **{key: float(value) for key, value in percentiles.items()},
        "max": 1e3 * float(seconds.max()),
        **benchmark["extra_info"],
    }


def markdown(report: dict[str, Any]) -> str:
    """A table for each group, and the ratios of latencies."""
    facts = report["machine"]
    lines = [f"# {facts['gpu']}", "", ", ".join(f"{key} {value}" for key, value in facts.items() if key != "gpu"), ""]
    for group in dict.fromkeys(row["group"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["group"] == group]
        lines += [f"## {group}", "", *table(rows), ""]
    return "\n".join([*lines, *verdicts(report["rows"])]) + "\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown for one group."""
    lines = ["| | p50, ms | p95 | p99 | max | rounds | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        extra = ", ".join(
            f"{key.replace('_', ' ')} {row[key]:.4g}"
            for key in ("nodes", "frames_per_second", "joules_per_frame", "times_predicted")
            if key in row
        )
        times = " | ".join(f"{row[key]:.4g}" for key in ("p50", "p95", "p99", "max"))
        lines.append(f"| {row['name']} | {times} | {row['rounds']} | {extra} |")
    return lines


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Ratios of latencies within this run, and the best throughput."""
    found = []
    for group, what, period in PERIODS:
        latency = {row["name"]: row["p50"] for row in rows if row["group"].startswith(group)}
        ours = [p50 for name, p50 in latency.items() if name.startswith(OURS)]
        if ours:
            best = min(ours)
            found.append(f"Best latency {what}{best:.3f} ms (the scanner's own frame period: {period} ms).")
            for name, p50 in latency.items():
                if name.startswith(OPPONENTS):
                    found.append(f"{name}: {p50 / best:.1f} times as long, in the same run.")
    rates = [row["frames_per_second"] for row in rows if "frames_per_second" in row]
    return [*found, f"Best throughput: {max(rates):.0f} frames/s."] if rates else found


if __name__ == "__main__":
    main()
