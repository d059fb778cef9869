"""Tables of what a GPU measured: ``python bench/gpu_report.py MEASURED.json ... -o bench/results``.

From pytest-benchmark's JSON to ``gpu-NAME.json`` and ``gpu-NAME.md``, named after the GPU, with date, versions, and the
percentiles and ratios that a reader wants.
"""

import argparse
import json
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("mpi-fast", "torch", "cupy-cuda13x", "cupy-cuda12x", "triton", "tensorrt", "tensorrt-rtx", "onnxruntime")
PUBLISHED, OURS, COMPILER = "the published setting", "one CUDA graph", "torch.compile"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results"))
    options = parser.parse_args()
    benchmarks = [one for file in options.measured for one in json.loads(file.read_text())["benchmarks"]]
    facts = machine()
    report = {"machine": facts, "rows": [summary(one) for one in benchmarks]}
    name = re.sub(r"[^a-z0-9]+", "-", facts["gpu"].lower()).strip("-")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"gpu-{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / f"gpu-{name}.md").write_text(markdown(report))
    print(markdown(report))


def machine() -> dict[str, str]:
    """GPU and driver by the driver's own tool, versions of what ran."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu, driver = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0].split(", ")
    found = {"gpu": gpu, "driver": driver, "date": datetime.now(UTC).date().isoformat()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def summary(benchmark: dict[str, Any]) -> dict[str, Any]:
    """One line: percentiles in milliseconds over all rounds."""
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
    """A table for each group, and what the latencies say."""
    facts = report["machine"]
    lines = [f"# {facts['gpu']}", "", ", ".join(f"{key} {value}" for key, value in facts.items() if key != "gpu"), ""]
    for group in dict.fromkeys(row["group"] for row in report["rows"]):
        lines += [f"## {group}", "", "| | p50, ms | p95 | p99 | max | rounds | |", "|---|---|---|---|---|---|---|"]
        for row in (row for row in report["rows"] if row["group"] == group):
            extra = ", ".join(
                f"{key.replace('_', ' ')} {row[key]:.4g}"
                for key in ("frames_per_second", "joules_per_frame", "times_predicted")
                if key in row
            )
            times = " | ".join(f"{row[key]:.4g}" for key in ("p50", "p95", "p99", "max"))
            lines.append(f"| {row['name']} | {times} | {row['rounds']} | {extra} |")
        lines.append("")
    return "\n".join([*lines, *verdicts(report["rows"])]) + "\n"


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Ratios within this run."""
    latency = {row["name"]: row["p50"] for row in rows if row["group"] == "latency of one frame"}
    best = min((value for name, value in latency.items() if name.startswith(OURS)), default=None)
    if best is None:
        return []
    found = [f"Best latency: {best:.3f} ms (the scanner's own frame period: 0.653 ms)."]
    for opponent in (COMPILER, PUBLISHED):
        slower = [value for name, value in latency.items() if opponent in name]
        found += [f"{opponent}: {value / best:.1f} times as long, in the same run." for value in slower]
    rates = [row["frames_per_second"] for row in rows if "frames_per_second" in row]
    return [*found, f"Best throughput: {max(rates):.0f} frames/s." if rates else ""]


if __name__ == "__main__":
    main()
