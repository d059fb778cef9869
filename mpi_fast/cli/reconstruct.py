"""``mpi-fast reconstruct``: a measurement and a calibration in, images out."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

import mpi_fast
from mpi_fast.cli.arrays import is_array, made_by, read_frames
from mpi_fast.cli.options import (
    Axis,
    Device,
    Empty,
    EngineName,
    External,
    JsonFile,
    Model,
    Plane,
    Samples,
    Seed,
    Steps,
    Threads,
    Untrusted,
    Variable,
    parse_average,
    parse_integers,
    parse_plane,
    parse_range,
)
from mpi_fast.console import check_outputs, console, facts_table, friendly, note, progress_bar, spinner, write_json
from mpi_fast.errors import InputError
from mpi_fast.flags import Flag, names_of

if TYPE_CHECKING:
    from mpi_fast.pairing import MeasuredRows
    from mpi_fast.reconstructor import Reconstruction, Reconstructor


def reconstruct(
    measurement: Annotated[
        Path, typer.Argument(metavar="MEASUREMENT.mdf", help="Measurement: MDF v2, or an array in .mat, .npy, .npz.")
    ],
    calibration: Annotated[
        Path, typer.Option("-c", "--calibration", help="System matrix (MDF), or what calibrate saved.")
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            show_default="MEASUREMENT.reco.mdf, of arrays .reco.npz",
            help="File to write, its format by its suffix: .mdf, .npz, .png...; may be given several times.",
        ),
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Picture of the first frames to write, too.")] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X0:X1,Y0:Y1", help="Box in mm, or a file of labels: a region of a .csv."),
    ] = None,
    json_file: JsonFile = None,
    plane: Plane = None,
    model: Model = "default",
    samples: Samples = 8,
    steps: Steps = None,
    sampler: Annotated[str, typer.Option(help="dpm, heun, euler-maruyama or predictor-corrector.")] = "dpm",
    seed: Seed = 0,
    frames: Annotated[
        str | None, typer.Option(metavar="A:B", show_default="all", help="Frames to reconstruct, from 0.")
    ] = None,
    periods: Annotated[
        str | None, typer.Option(metavar="A:B", help="Periods of each frame: those of a patch, say.")
    ] = None,
    average: Annotated[str, typer.Option(metavar="N|all", help="Average so many consecutive frames into one.")] = "1",
    background: Annotated[bool, typer.Option(help="Subtract the measurement's mean background frame.")] = True,
    variable: Variable = None,
    empty: Empty = None,
    axis: Axis = None,
    on_bad_frame: Annotated[
        str, typer.Option(help="flag: a frame with NaN comes out as NaN, flagged; stop: it is an error.")
    ] = "flag",
    device: Device = "auto",
    engine: EngineName = "auto",
    threads: Threads = None,
    external: External = False,
    untrusted: Untrusted = False,
) -> None:
    """Reconstruct images from the signals in a measurement, in bounded memory however long it is."""
    from mpi_fast import formats
    from mpi_fast.mdf import access

    with friendly(), access(external=external, untrusted=untrusted):
        array = is_array(measurement, variable)
        default = measurement.with_name(measurement.stem + (".reco.npz" if array else ".reco.mdf"))
        outputs = [*(output or [default]), *([png] if png else [])]
        if region and not any(one.suffix.lower() == ".csv" for one in outputs):
            raise InputError("--region: of tables: name an output that ends in .csv, too")
        formats.regions.require(region or ())
        check_outputs(*outputs, inputs=(measurement, calibration))
        files = [file for one in outputs for file in formats.check(one, acquired=not array)]
        check_outputs(*files, json_file, inputs=(measurement, calibration))
        wanted = parse_range(frames, "--frames")
        selection: dict[str, Any] = {"start": wanted.start or 0, "stop": wanted.stop}
        selection |= {"periods": parse_range(periods, "--periods"), "average": parse_average(average)}
        options: dict[str, Any] = {"plane": parse_plane(plane)} if plane else {}
        from mpi_fast.calibration import Calibration
        from mpi_fast.mdf import MeasurementFile
        from mpi_fast.pairing import MeasuredRows, image_grid
        from mpi_fast.reconstructor import Reconstructor

        if array:
            if periods or average != "1":
                raise InputError("--periods, --average: of MDF files; average the frames of an array beforehand")
            with spinner("reading the calibration"):
                reduced = Calibration.open(calibration, **options)
                layout = {"variable": variable, "empty": parse_integers(empty, "--empty") or (), "axis": axis}
                signals = read_frames(measurement, reduced, layout, wanted)
            grid = image_grid(reduced)
            regions = formats.regions_of(region or (), grid)
            options = {"sampler": sampler, "threads": threads, "engine": engine, "on_bad_frame": on_bad_frame}
            reconstructor = Reconstructor(reduced, model, samples, steps, device, seed, **options)
            result, provenance = reconstructor(signals), made_by(reconstructor, measurement, calibration)
            header = formats.Header(grid, None, provenance, regions)
            with formats.writing(outputs, header) as writer:
                writer.append(result, selection["start"] + np.arange(len(result)))
            summary = Summary()
            summary.add(result)
            _report(measurement, files, summary, provenance, json_file)
            return
        with MeasurementFile(measurement) as file:
            with spinner("reading the calibration"):
                reduced = Calibration.open(calibration, **options)
                rows = MeasuredRows(file, reduced, background=background, on_bad_frame=on_bad_frame, **selection)
            grid = image_grid(reduced)
            regions = formats.regions_of(region or (), grid)
            options = {"sampler": sampler, "threads": threads, "engine": engine, "on_bad_frame": on_bad_frame}
            reconstructor = Reconstructor(reduced, model, samples, steps, device, seed, **options)
            for done in rows.agreement.done:
                note(done)
            if not rows.background_subtracted:
                note(_why_no_background(background, file.background_corrected))
            provenance = _provenance(reconstructor, measurement, calibration, rows)
            header = formats.Header(grid, file.acquisition, provenance, regions)
            with formats.writing(outputs, header) as writer:
                summary = Summary()
                with progress_bar("frames") as bar:
                    task = bar.add_task("reconstructing", total=rows.num_frames)
                    for result in reconstructor.stream(rows):
                        writer.append(result, rows.numbers, rows.times)
                        summary.add(result)
                        bar.advance(task, len(result))
        _report(measurement, files, summary, provenance, json_file)


def _report(
    measurement: Path, written: list[Path], summary: "Summary", provenance: dict[str, Any], json_file: Path | None
) -> None:
    """Say what was found and what was written, on the screen and in the JSON file."""
    console.print(facts_table(str(measurement), summary.shown()))
    console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)
    if json_file:
        write_json(json_file, {"written": written, **summary.facts(), "provenance": provenance})


class Summary:
    """What is kept of a stream of reconstructions: a few numbers."""

    def __init__(self) -> None:
        self.frames, self.peak = 0, 0.0
        self._snr: list[float] = []
        self._milliseconds = 0.0
        self._misfit: list[Any] = []
        self._flags: list[int] = []

    def add(self, result: "Reconstruction") -> None:
        """Take in one chunk."""
        self.frames += len(result)
        self.peak = max(self.peak, float(np.nanmax(result.image, initial=0.0)))
        if result.misfit is not None and result.flags is not None:
            self._misfit.append(result.misfit)
            self._flags.extend(result.flags.tolist())
        self._snr.extend(result.snr_db.tolist())
        self._milliseconds += result.elapsed_ms * len(result)

    def facts(self) -> dict[str, Any]:
        """Numbers for the JSON file."""
        found = np.asarray(self._snr)[np.isfinite(self._snr)]
        misfit = np.concatenate(self._misfit) if self._misfit else np.empty((0, 3))
        return {
            "frames": self.frames,
            "mean_snr_db": float(found.mean()) if found.size else None,
            "ms_per_frame": self._milliseconds / self.frames,
            "peak_concentration": self.peak,
            "snr_db": self._snr,
            "misfit": {name: misfit[:, part].tolist() for part, name in enumerate(("outside", "receiver", "image"))},
            "flags": [names_of(int(flags)) for flags in self._flags],
        }

    def shown(self) -> dict[str, str]:
        """The same for people."""
        facts = self.facts()
        snr = facts["mean_snr_db"]
        return {
            "frames": f"{self.frames}",
            "mean SNR found, weighted rows": "no signal" if snr is None else f"{snr:.1f} dB",
            "time per frame": f"{facts['ms_per_frame']:.1f} ms",
            "peak concentration": f"{self.peak:.4g} of the delta sample",
            "flagged frames": self._flagged(),
        }

    def _flagged(self) -> str:
        """How many frames have each flag."""
        counts = {str(flag.name).lower(): sum(bool(flags & flag) for flags in self._flags) for flag in Flag}
        return ", ".join(f"{name}: {count}" for name, count in counts.items() if count) or "none"


def _why_no_background(wanted: bool, corrected: bool) -> str:
    if not wanted:
        return "background not subtracted, as asked"
    if corrected:
        return "the measurement is background-corrected already"
    return "the measurement has no background frames: nothing subtracted"


def _provenance(
    reconstructor: "Reconstructor", measurement: Path, calibration: Path, rows: "MeasuredRows"
) -> dict[str, Any]:
    """What made the images, so that they can be made again."""
    bundle, reduced = reconstructor.bundle, reconstructor.calibration
    return {
        "package": f"mpi-fast {mpi_fast.__version__}",
        "command": " ".join(["mpi-fast", *sys.argv[1:]]),
        "measurement": measurement.name,
        "background_subtracted": rows.background_subtracted,
        "averaged": rows.averaged,
        "converted": list(rows.agreement.done),
        "doubtful": list(rows.agreement.doubts),
        "calibration": {"file": calibration.name, "rows": reduced.num_rows, **reduced.facts},
        "model": {"files": bundle.manifest["files"], "provenance": bundle.manifest.get("provenance")},
        **asdict(reconstructor.sampling),
        "runs_on": reconstructor.runs_on,
    }
