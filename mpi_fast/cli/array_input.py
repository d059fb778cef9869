"""Array files (MATLAB, NumPy) as input of ``calibrate`` and ``reconstruct``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mpi_fast.cli.options import parse_grid, parse_numbers
from mpi_fast.errors import InputError

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration
    from mpi_fast.decomposition import Report

SUFFIXES = ".mat", ".npy", ".npz"

# Options that have a meaning for one kind of input only.
KIND_OF = dict.fromkeys(("periods", "average", "background"), "MDF files") | dict.fromkeys(
    ("grid", "field_of_view", "variable", "empty", "axis", "fastest", "frequencies", "sampling_rate"), "arrays"
)


def is_array(path: Path, array_option: str | None) -> bool:
    """Whether a file is an array file, judged by its name or by options that only array files have."""
    return path.suffix.lower() in SUFFIXES or array_option is not None


def refuse_options_of_others(context: typer.Context, *, array: bool) -> None:
    """Raise InputError if options are given, be it with their default values, that this kind of input does not have."""
    other = "MDF files" if array else "arrays"
    for name in context.params:
        source = context.get_parameter_source(name)
        if KIND_OF.get(name) == other and source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
            raise InputError(f"--{name.replace('_', '-')}: of {other}; this input is {'an array' if array else 'MDF'}")


def calibrate_file(path: Path, layout: dict[str, Any], selection: dict[str, Any], report: "Report") -> "Calibration":
    """Calibrate from the array in a file.

    Parameters
    ----------
    path : Path
    layout : dict
        Options of `arrays.calibrate_array` as texts, and ``variable``.
    selection : dict
        Options of `Calibration.from_mdf`.
    report : callable
        Called with the progress.
    """
    from mpi_fast.arrays import calibrate_array, read_array
    from mpi_fast.preprocessing import RowFilter

    grid, size = layout["grid"], layout["field_of_view"]
    if grid is None or size is None:
        raise InputError(f"{path}: an array says nothing of its grid: give --grid 8x8 and --field-of-view 40 (in mm)")
    if selection.pop("plane"):
        raise InputError("--plane: of MDF files; an array has one")
    shape = parse_grid(grid)
    lengths = parse_numbers(size, "--field-of-view", len(shape))[::-1]
    rate = layout["sampling_rate"]
    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--sampling-rate {rate}: expected a positive number")
    named = layout["frequencies"]
    array = read_array(path, layout["variable"])
    if array.dtype.kind == "f" and rate is None and named is None:
        raise InputError(f"{path}: real numbers are signals over time: give --sampling-rate, their samples per second")
    return calibrate_array(
        array,
        shape,
        tuple(1e-3 * length for length in lengths),
        empty=layout["empty"],
        axis=layout["axis"],
        fastest=layout["fastest"],
        frequencies=None if named is None else read_array(path, named).real.reshape(-1),
        sampling_rate=rate,
        rows=RowFilter(**selection),
        report=report,
        facts={"source": path.name},
    )


def read_frames(path: Path, calibration: "Calibration", layout: dict[str, Any], frames: slice) -> Any:
    """Frames of the array in a file, as `Calibration.rows` takes them, less the mean of frames without a sample."""
    from mpi_fast.arrays import frames_of, read_array

    array = read_array(path, layout["variable"])
    found = frames_of(array, calibration, empty=layout["empty"], axis=layout["axis"])
    if not len(found[frames]) or (frames.stop or 0) > len(found):
        raise InputError(f"--frames {frames.start or 0}:{frames.stop or ''}: {path} has {len(found)} frames")

    return found[frames]
