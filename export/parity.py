"""Differences between each exported graph and the network, on random scanners and on final images."""

from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from mpi_fast.bundle import half_name
from mpi_fast.errors import ModelError
from mpi_fast.export.artefacts import Case
from mpi_fast.metrics import psnr

TOLERANCE = 1e-4  # for float32, relative to the largest value of the original's output
PSNR_LOSS_DB = 0.05  # for float16, mean over the simulated frames


def compared(original: nn.Module, name: str, content: bytes, cases: list[Case]) -> list[dict[str, Any]]:
    """Entries of the manifest for a graph: largest differences from the network over all outputs, for each case.

    Parameters
    ----------
    original : nn.Module
        The network in float32.
    name, content : str, bytes
        The file; its name shows whether the tolerance of float16 applies.
    cases : list of Case
    """
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [_row(original, session, name, case) for case in cases]


def require(rows: list[dict[str, Any]]) -> None:
    """Refuse a graph that does not equal the network.

    Raises
    ------
    ModelError
        If a difference exceeds the tolerance, or is NaN.
    """
    for row in rows:
        change = row["psnr_change_db"]
        if not row["passed"]:
            raise ModelError(
                f"the exported network differs from the original: {row['artefact']}: relative difference "
                f"{row['relative']:.2g}{'' if change is None else f', PSNR {change:+.3f} dB'} on {row['what']}, "
                f"allowed {row['allowed']}; no bundle was written"
            )


def _row(original: nn.Module, session: Any, name: str, case: Case) -> dict[str, Any]:
    largest, relative, change = [], [], None
    for inputs in case.inputs:
        with torch.inference_mode():
            expected = [tensor.numpy() for tensor in original(*inputs.values())]
        found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        for ours, theirs in zip(found, expected, strict=True):
            largest.append(float(np.abs(ours - theirs).max()))
            relative.append(largest[-1] / float(np.abs(theirs).max()))
        if case.truth is not None:
            change = _mean_psnr(found[0], case.truth) - _mean_psnr(expected[0], case.truth)
    worst = float(np.max(relative))  # NaN stays NaN, and is refused
    if name.endswith(half_name("")):
        passed, allowed = change is not None and change >= -PSNR_LOSS_DB, f"{PSNR_LOSS_DB:g} dB loss"
    else:
        passed, allowed = worst <= TOLERANCE, f"{TOLERANCE:g} relative"
    facts = {"largest": float(np.max(largest)), "relative": worst, "psnr_change_db": change}
    return {"artefact": name, "what": case.what, **facts, "allowed": allowed, "passed": passed}


def _mean_psnr(images: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float(np.mean(psnr(images.reshape(len(truth), -1, 1), truth[..., None])))
