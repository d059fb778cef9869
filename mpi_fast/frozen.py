"""Find the frozen graph of a calibration in a bundle.

A frozen graph contains one scanner; with another scanner it would silently make wrong images. The manifest therefore
has a hash of its calibration, over everything that affects a frame.
"""

import hashlib
import json

import numpy as np

from mpi_fast.bundle import FROZEN, Bundle, half_name
from mpi_fast.calibration import Calibration
from mpi_fast.errors import MismatchError, ModelError
from mpi_fast.limits import EVALUATIONS


def fingerprint(calibration: Calibration) -> str:
    """SHA-256 of grid, selected rows and reduction."""
    digest = hashlib.sha256(json.dumps(calibration.grid).encode())
    arrays = calibration.selection, calibration.projection, calibration.singular_values, calibration.basis
    for array in (*arrays, calibration.weights):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def frozen_for(bundle: Bundle, calibration: Calibration, precision: str, evaluations: int = EVALUATIONS) -> str:
    """File of the graph that is frozen for a calibration.

    Parameters
    ----------
    bundle : Bundle
        An opened bundle.
    calibration : Calibration
        Calibration of the frames.
    precision : str
        ``fp16`` selects the graph with float16 inside, if there is one; anything else the graph in float32.
    evaluations : int
        Number of network evaluations, which is fixed in a frozen graph.

    Raises
    ------
    MismatchError
        If there is none, or if it is for another calibration or number of evaluations.
    ModelError
        If the list in the manifest is damaged.
    """
    try:
        there = {
            str(one["file"]): (one["scanner"], one["source"], one["evaluations"])
            for one in bundle.manifest.get("frozen", ())
        }
    except (KeyError, TypeError) as error:
        raise ModelError(f"{bundle.path}: the manifest's list of frozen graphs is damaged: {error!r}") from error
    wanted = [half_name(FROZEN), FROZEN] if precision == "fp16" else [FROZEN]
    found = [name for name in wanted if name in there]
    make = f"python -m mpi_fast.export {bundle.path} --calibration SCANNER.h5 --tensorrt"
    if not found:
        raise MismatchError(f"{bundle.path}: no graph is frozen for a calibration; make one and its engine: {make}")
    scanner, source, inside = there[found[0]]
    if scanner != fingerprint(calibration):
        raise MismatchError(
            f"{bundle.path}/{found[0]}: is frozen for another calibration, {source}; for this one, saved as "
            f"SCANNER.h5: {make}"
        )
    if inside != evaluations:
        raise MismatchError(f"{bundle.path}/{found[0]}: evaluates the network {inside} times, not {evaluations}")
    return found[0]
