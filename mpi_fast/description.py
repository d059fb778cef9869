"""Descriptions of calibrations for users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpi_fast.grids import shown

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration

UNIT = "of the delta sample"  # of every image, and of its uncertainty


def described(calibration: "Calibration") -> dict[str, Any]:
    """The main facts of a calibration, for users."""
    facts, used = calibration.facts, calibration.frequencies[calibration.selection.any(axis=0)]
    size = " x ".join(f"{1e3 * length:.4g}" for length in calibration.field_of_view)
    best, candidates = facts.get("best_snr"), facts.get("candidate_rows")
    of_candidates = "" if candidates is None else f" of {candidates} candidates"
    return {
        "grid": f"{shown(calibration.grid)} voxels, {size} mm",
        "rows M": f"{calibration.num_rows}{of_candidates}",
        "rank R": calibration.rank,
        "rows per channel": _listed(calibration.selection.sum(axis=1).tolist()),
        "best SNR": "unknown" if best is None else f"{best:.4g}",
        "frequencies": facts.get("frequencies") or f"{used[0] / 1e3:.4g} to {used[-1] / 1e3:.4g} kHz",
        "largest, smallest singular value": ", ".join(f"{s:.4g}" for s in calibration.singular_values[[0, -1]]),
        "background frames": facts.get("background_frames", "unknown"),
    }


def _listed(values: Sequence[int]) -> str:
    return ", ".join(f"{channel}: {value}" for channel, value in enumerate(values))
