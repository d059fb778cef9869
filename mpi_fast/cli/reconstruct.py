"""``mpi-fast reconstruct``: make images from a measurement and a calibration."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpi_fast.atomic import check_target
from mpi_fast.cli.array_input import is_array, read_frames, refuse_options_of_others
from mpi_fast.cli.option_inputs import files_of
from mpi_fast.cli.options import (
    Axis,
    Device,
    Empty,
    EngineName,
    Evaluations,
    External,
    JsonFile,
    Model,
    OnCluster,
    Plane,
    Region,
    Threads,
    Untrusted,
    Variable,
    Workers,
    parse_average,
    parse_integers,
    parse_plane,
    parse_range,
)
from mpi_fast.cli.provenance import made_by, origin_of
from mpi_fast.console import check_outputs, console, facts_table, friendly, note, progress_bar, spinner, write_json
from mpi_fast.errors import InputError
from mpi_fast.flags import Flag
from mpi_fast.limits import EVALUATIONS
from mpi_fast.machine import cores
from mpi_fast.summary import Summary

if TYPE_CHECKING:
    from mpi_fast.pairing import MeasuredRows


def reconstruct(
    context: typer.Context,
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
            help="File to write; its suffix selects the format: .mdf, .npz, .png... May be repeated.",
        ),
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Also write a picture of the first frames.")] = None,
    region: Region = None,
    json_file: JsonFile = None,
    plane: Plane = None,
    model: Model = "default",
    frames: Annotated[
        str | None, typer.Option(metavar="A:B", show_default="all", help="Frames to reconstruct, counted from 0.")
    ] = None,
    periods: Annotated[
        str | None, typer.Option(metavar="A:B", help="Periods of each frame to use, such as those of a patch.")
    ] = None,
    average: Annotated[
        str, typer.Option(metavar="N|all", help="Number of consecutive frames averaged into one.")
    ] = "1",
    background: Annotated[bool, typer.Option(help="Subtract the mean background frame of the measurement.")] = True,
    variable: Variable = None,
    empty: Empty = None,
    axis: Axis = None,
    on_bad_frame: Annotated[
        str, typer.Option(help="For frames with NaN: skip them, mark their images by NaN and a flag, or stop.")
    ] = "mark",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")] = False,
    device: Device = "auto",
    engine: EngineName = "auto",
    threads: Threads = None,
    evaluations: Evaluations = EVALUATIONS,
    workers: Workers = 1,
    cluster: OnCluster = None,
    external: External = False,
    untrusted: Untrusted = False,
) -> None:
    """Reconstruct images from the signals in a measurement of any length, in bounded memory."""
    from mpi_fast import formats
    from mpi_fast.mdf import access

    with friendly(), access(external=external, untrusted=untrusted):
        array = is_array(measurement, variable)
        refuse_options_of_others(context, array=array)
        # Not by with_name, which refuses names such as ".", before anything says that this is a folder.
        default = measurement.parent / (measurement.stem + (".reco.npz" if array else ".reco.mdf"))
        outputs = [*(output or [default]), *([png] if png else [])]
        formats.regions.require(region or (), outputs)
        inputs = measurement, calibration, *files_of(model=model, regions=region)
        check_outputs(*outputs, inputs=inputs)
        files = [file for one in outputs for file in formats.check(one, acquired=not array)]
        check_outputs(*files, json_file, inputs=inputs)
        wanted = parse_range(frames, "--frames")
        selection: dict[str, Any] = {"start": wanted.start or 0, "stop": wanted.stop}
        selection |= {"periods": parse_range(periods, "--periods"), "average": parse_average(average)}
        layout = {"variable": variable, "empty": parse_integers(empty, "--empty") or (), "axis": axis}
        options: dict[str, Any] = {"plane": parse_plane(plane)} if plane else {}
        if on_bad_frame not in ("skip", "mark", "stop"):
            raise InputError(f"--on-bad-frame {on_bad_frame}: expected skip, mark or stop")
        if workers > 1 and cluster is not None:
            raise InputError("--workers, --cluster: expected one of the two")
        strictness = "stop" if on_bad_frame == "stop" else "mark"
        from mpi_fast.arrays import ArrayRows
        from mpi_fast.calibration import Calibration
        from mpi_fast.cluster import import_ray
        from mpi_fast.mdf import MeasurementFile
        from mpi_fast.pairing import MeasuredRows, image_grid
        from mpi_fast.reconstructor import Reconstructor
        from mpi_fast.unfinished import Source, Unfinished

        if cluster is not None:
            import_ray()
        with ExitStack() as stack:
            rows = file = None
            with spinner("reading the calibration"):
                if array:
                    reduced = Calibration.open(calibration, **options)
                    signals = read_frames(measurement, reduced, layout, wanted)
                else:
                    file = stack.enter_context(MeasurementFile(measurement))
                    reduced = Calibration.open(calibration, **options)
                    rows = MeasuredRows(file, reduced, background=background, on_bad_frame=strictness, **selection)
            grid = image_grid(reduced)
            regions = formats.regions_of(region or (), grid)
            if cluster is not None or workers > 1:
                threads = threads or (1 if cluster is not None else max(1, cores() // workers))
            options = {"threads": threads, "evaluations": evaluations, "engine": engine, "on_bad_frame": strictness}
            reconstructor = Reconstructor(reduced, model, device, **options)
            if rows is not None and file is not None:
                _print_notes(rows, _why_no_background(background, file.background_corrected))
            source: Source = ArrayRows(signals, wanted.start or 0) if rows is None else rows
            provenance = made_by(reconstructor, measurement, calibration, rows, layout)
            header = formats.Header(grid, None if file is None else file.acquisition, provenance, regions)
            of_frames = {**selection, "background": background, "plane": plane, **layout}
            origin = origin_of(reconstructor, measurement, calibration, threads, of_frames)
            with Unfinished(check_target(outputs[0]), origin, resume=resume) as unfinished:
                with progress_bar("frames") as bar:
                    task = bar.start_task_at("reconstructing", unfinished.done, source.num_frames)
                    for chunk in unfinished.run(reconstructor, source, workers, cluster):
                        bar.advance(task, len(chunk))
                summary = Summary()
                with formats.writing(outputs, header) as writer:
                    for chunk in unfinished.chunks():
                        summary.add(chunk.result)
                        kept = chunk.without(Flag.BAD) if on_bad_frame == "skip" else chunk
                        writer.append(kept.result, kept.numbers, kept.times)
        _report(measurement, files, summary, provenance, json_file)


def _print_notes(rows: "MeasuredRows", no_background: str) -> None:
    """Print notes about the processing of the signals."""
    for done in rows.agreement.done:
        note(done)
    if not rows.background_subtracted:
        note(no_background)
    if rows.left_over:
        frames = "frame is" if rows.left_over == 1 else "frames are"
        note(f"the last {rows.left_over} {frames} fewer than the {rows.averaged} averaged into one: left out")


def _report(
    measurement: Path, written: list[Path], summary: Summary, provenance: dict[str, Any], json_file: Path | None
) -> None:
    """Report results and written files, on the screen and in the JSON file."""
    console.print(facts_table(str(measurement), summary.shown()))
    console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)
    if json_file:
        write_json(json_file, {"written": written, **summary.facts(), "provenance": provenance})


def _why_no_background(wanted: bool, corrected: bool) -> str:
    if not wanted:
        return "background not subtracted, as asked"
    if corrected:
        return "the measurement is background-corrected already"
    return "the measurement has no background frames: nothing subtracted"
