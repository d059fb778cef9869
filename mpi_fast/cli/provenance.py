"""Provenance of images, stored with them and compared when an interrupted run is resumed."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpi_fast
from mpi_fast.fingerprint import fingerprint
from mpi_fast.machine import cores

if TYPE_CHECKING:
    from mpi_fast.pairing import MeasuredRows
    from mpi_fast.reconstructor import Reconstructor


def command_line() -> str:
    """The command that runs, quoted so that a shell can run it again; what is no text in file names is escaped."""
    command = shlex.join(["mpi-fast", *sys.argv[1:]])
    return command.encode(errors="backslashreplace").decode()


def made_by(
    reconstructor: "Reconstructor",
    measurement: Path,
    calibration: Path,
    rows: "MeasuredRows | None",
    layout: Mapping[str, Any],
) -> dict[str, Any]:
    """Provenance, with which images can be made again; parts with different provenance are not merged.

    ``rows`` is that of MDF measurements; for arrays it is None, and ``layout`` contains their options.
    """
    bundle, reduced = reconstructor.bundle, reconstructor.calibration
    made = {
        "package": f"mpi-fast {mpi_fast.__version__}",
        "command": command_line(),
        "measurement": measurement.name,
        "fingerprints": {"measurement": fingerprint(measurement), "calibration": fingerprint(calibration)},
        "calibration": {"file": calibration.name, "rows": reduced.num_rows, **reduced.facts},
        "model": {"files": bundle.manifest["files"], "provenance": bundle.manifest.get("provenance")},
        "evaluations": reconstructor.evaluations,
        "runs_on": reconstructor.runs_on,
    }
    if rows is None:
        made["layout"] = _plain(layout)
    else:
        made |= {
            "background_subtracted": rows.background_subtracted,
            "periods": [rows.periods.start, rows.periods.stop],
            "averaged": rows.averaged,
            "converted": list(rows.agreement.done),
            "doubtful": list(rows.agreement.doubts),
        }
    return made


def origin_of(
    reconstructor: "Reconstructor",
    measurement: Path,
    calibration: Path,
    threads: int | None,
    selection: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the bits of the images depend on; files are identified by size and time of change."""
    return {
        "package": f"mpi-fast {mpi_fast.__version__}",
        "measurement": _state_of(measurement),
        "calibration": _state_of(calibration),
        "model": reconstructor.bundle.manifest["files"],
        "evaluations": reconstructor.evaluations,
        "runs_on": reconstructor.runs_on,
        "threads": threads or cores(),
        **_plain(selection),
    }


def _plain(selection: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Options as JSON values."""
    return {name: value if isinstance(value, int | float) else str(value) for name, value in selection.items()}


def _state_of(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} bytes of {state.st_mtime_ns}"
