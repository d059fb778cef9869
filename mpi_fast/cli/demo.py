"""``mpi-fast demo``: reconstruct phantoms of a scanner that was not used in training; a picture and a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from mpi_fast.cli.bench import PUBLISHED_MS, measure, summarise
from mpi_fast.cli.option_inputs import files_of
from mpi_fast.cli.options import Evaluations, JsonFile, Model, Seed, Threads
from mpi_fast.console import check_outputs, console, facts_table, friendly, note, progress_bar, write_json
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.limits import EVALUATIONS

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration
    from mpi_fast.cli.trial import Trial
    from mpi_fast.simulation import Scanner

SNRS_DB = 15.0, 25.0  # those of the paper
CALIBRATION_SNR_DB = 20.0
CAPTION = """\
Means over {frames} frames. PSNR: peak = the true maximum. SSIM: Gaussian window, sigma 1.5, data range = the
true maximum. Images are not rescaled. SNR found: over rows weighted by their noise, as the program sees them; in
brackets the true value of the same. ART: real, non-negative regularised Kaczmarz, {sweeps} sweeps, at the strength
that comes closest to the truth, which no user knows; mpi-fast is told neither noise level nor scale."""


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write.")] = Path("demo.png"),
    model: Model = "default",
    threads: Threads = None,
    evaluations: Evaluations = EVALUATIONS,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Reconstruct frames of a simulated scanner with the bundled network and with ART; a picture and a table."""
    with friendly():
        check_outputs(output, json_file, inputs=files_of(model=model))
        picture = _can_draw(output)
        from mpi_fast.cli.trial import SWEEPS, figures_of, run_trial, scanner
        from mpi_fast.experiment import measure_matrix
        from mpi_fast.reconstructor import Reconstructor

        with progress_bar("steps") as bar:
            task = bar.add_task("calibrating a simulated scanner", total=2 + len(SNRS_DB))
            matrix = measure_matrix(scanner(), CALIBRATION_SNR_DB, np.random.default_rng([seed, 0]))
            calibration = matrix.calibrate()
            reconstructor = Reconstructor(calibration, model, threads=threads, evaluations=evaluations)
            truth = matrix.truth[calibration.selection]
            trials = []
            for snr_db in SNRS_DB:
                bar.update(task, advance=1, description=f"reconstructing at {snr_db:g} dB, and tuning ART")
                trials.append(run_trial(reconstructor, truth, snr_db, seed))
            bar.update(task, advance=1, description="measuring the time per frame")
            speed = summarise(measure(reconstructor, trials[0].rows[:1], repeats=20), frames=1)
        about = _about(matrix.scanner, calibration)
        figures = [one for trial in trials for one in figures_of(trial, speed["median_ms"])]
        console.print(facts_table("simulated scanner, unknown to the network", about))
        console.print(_table(figures))
        caption = CAPTION.format(frames=len(trials[0].truth), sweeps=SWEEPS)
        console.print(" ".join(caption.split()), style="dim")
        faster = (
            f"{PUBLISHED_MS / speed['median_ms']:.0f} times under the published {PUBLISHED_MS / 1e3:g} s on an RTX 4090"
        )
        console.print(f"{speed['median_ms']:.1f} ms a frame on this CPU: {faster} (Wang et al. 2025)", soft_wrap=True)
        if picture:
            _draw(output, trials, calibration)
            console.print(f"wrote {output}", soft_wrap=True)
        if json_file:
            written = output if picture else None
            write_json(json_file, {"scanner": about, "figures": figures, "latency": speed, "picture": written})


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table("true SNR", "method", "PSNR", "SSIM", "SNR found", "time", "published")
    for one in figures:
        found, time = one.get("snr_found_db"), one.get("ms_per_frame")
        table.add_row(
            f"{one['snr_db']:g} dB",
            one["method"],
            f"{one['psnr_db']:.1f} dB",
            f"{one['ssim']:.3f}",
            "" if found is None else f"{found:.1f} ({one['weighted_snr_db']:.1f})",
            "" if time is None else f"{time:.1f} ms",
            "" if time is None else f"{PUBLISHED_MS:.0f} ms",
        )
    return table


def _about(one: "Scanner", calibration: "Calibration") -> dict[str, Any]:
    return {
        "particles": f"{1e9 * one.core_diameter:g} nm core",
        "fields": f"{one.gradient[0]:g} T/m, {1e3 * one.drive_amplitude[0]:g} x {1e3 * one.drive_amplitude[1]:g} mT",
        "grid": f"{one.grid[0]} x {one.grid[1]} voxels of {1e3 * one.voxel_size[0]:g} mm",
        "calibration": f"measured at {CALIBRATION_SNR_DB:g} dB with background frames: "
        f"{calibration.num_rows} rows, rank {calibration.rank}",
    }


def _can_draw(output: Path) -> bool:
    """Whether the picture can be drawn; a note says what to install if Matplotlib is missing."""
    from mpi_fast import plots

    try:
        plots.require(output)
    except InputError:
        raise
    except MPIFastError as error:
        note(f"no picture: {error}")
        return False
    return True


def _draw(output: Path, trials: "list[Trial]", calibration: "Calibration") -> None:
    from mpi_fast import plots
    from mpi_fast.cli.trial import PHANTOMS

    columns = [
        plots.Column(
            f"{name}\n{trial.snr_db:g} dB",
            trial.truth[index],
            trial.baseline[index],
            trial.result.image[index],
            trial.result.std[index],
        )
        for trial in trials
        for index, name in enumerate(PHANTOMS)
    ]
    title = "A scanner that the network has never seen: truth, ART, and mpi-fast with its error and uncertainty"
    plots.save(plots.comparison_figure(columns, calibration.field_of_view, title=title), output)
