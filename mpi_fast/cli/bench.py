"""``mpi-fast bench``: latency and throughput on this machine. The full measurements are in ``bench/``."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from mpi_fast.cli.option_inputs import files_of
from mpi_fast.cli.options import (
    Device,
    EngineName,
    Evaluations,
    JsonFile,
    Model,
    Seed,
    Threads,
    parse_integers,
)
from mpi_fast.console import check_outputs, console, facts_table, friendly, note, progress_bar, write_json
from mpi_fast.limits import EVALUATIONS, LARGEST_BATCH
from mpi_fast.machine import machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpi_fast.reconstructor import Reconstructor

SNR_DB = 20.0  # of matrix and frames; it does not affect the time
PUBLISHED_MS = 2490.0  # per frame on an RTX 4090: Wang et al., "A score-based model guided by signals", 2025


def bench(
    frames: Annotated[str, typer.Option(metavar="N,N", help="Frames reconstructed in one call.")] = "1,8,64",
    threads: Threads = None,
    evaluations: Evaluations = EVALUATIONS,
    device: Device = "auto",
    engine: EngineName = "auto",
    repeats: Annotated[int, typer.Option(min=1, max=10**6, help="Calls measured for each number of frames.")] = 20,
    model: Model = "default",
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure the time per frame, from selected rows to images, on this machine."""
    with friendly():
        counts = parse_integers(frames, "--frames", smallest=1, largest=LARGEST_BATCH) or []
        check_outputs(json_file, inputs=files_of(model=model))
        from mpi_fast.experiment import measure_matrix
        from mpi_fast.noise import add_noise
        from mpi_fast.phantoms import generate
        from mpi_fast.reconstructor import Reconstructor
        from mpi_fast.simulation import Scanner

        with progress_bar("calls") as bar:
            task = bar.add_task("measuring", total=len(counts) * repeats)
            matrix = measure_matrix(Scanner(), SNR_DB, np.random.default_rng(seed))
            calibration = matrix.calibrate()
            machinery: dict[str, Any] = {"threads": threads, "evaluations": evaluations, "engine": engine}
            reconstructor = Reconstructor(calibration, model, device, **machinery)
            results = []
            for count in counts:
                images = generate("tumours", count, calibration.grid, seed).reshape(count, -1)
                rows = add_noise(images @ calibration.matrix.T, SNR_DB, np.random.default_rng(seed))
                milliseconds = measure(reconstructor, rows, repeats, lambda: bar.advance(task))
                results.append({"frames": count, **summarise(milliseconds, count)})
        facts = machine()
        console.print(facts_table("machine", facts))
        title = f"{evaluations} evaluations, {calibration.num_rows} rows, rank {calibration.rank}"
        console.print(results_table(results, title))
        note(reconstructor.runs_on)
        if json_file:
            about = {
                "evaluations": evaluations,
                "runs_on": reconstructor.runs_on,
                "graphs": reconstructor.graphs,
                "rows": calibration.num_rows,
            }
            write_json(json_file, {"machine": facts, **about, "rank": calibration.rank, "results": results})


def measure(
    reconstructor: "Reconstructor",
    rows: "NDArray[np.complex64]",
    repeats: int,
    report: Callable[[], None] = lambda: None,
) -> "NDArray[np.float64]":
    """Milliseconds of each of several calls, after a warm-up call."""
    reconstructor(rows)
    milliseconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        reconstructor(rows)
        milliseconds.append(1e3 * (time.perf_counter() - began))
        report()
    return np.array(milliseconds)


def summarise(milliseconds: "NDArray[np.float64]", frames: int) -> dict[str, float]:
    """Median and percentiles per frame in ms, and frames per second at the median."""
    low, median, high = np.percentile(milliseconds / frames, [5, 50, 95])
    return {"median_ms": median, "p5_ms": low, "p95_ms": high, "frames_per_second": 1e3 / median}


def results_table(results: list[dict[str, Any]], title: str) -> Table:
    """One line for each number of frames."""
    columns = "frames a call", "median", "5 %", "95 %", "frames/s", "published / here"
    table = Table(*columns, title=title, title_justify="left")
    for one in results:
        times = [f"{one[name]:.2f} ms" for name in ("median_ms", "p5_ms", "p95_ms")]
        faster = f"{PUBLISHED_MS / one['median_ms']:.0f} x"
        table.add_row(str(one["frames"]), *times, f"{one['frames_per_second']:.1f}", faster)
    table.caption = "per frame; published: 2.49 s on an RTX 4090 (Wang et al. 2025)"
    return table
