"""Display of calibrations and reconstructions in notebooks: a small table and a picture."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.description import UNIT, described
from mpi_fast.grids import shown
from mpi_fast.summary import Summary

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration
    from mpi_fast.reconstruction import Reconstruction

SHOWN = 8  # frames
SIZE = 110  # minimum number of pixels of an image's longer side
GAP = 4
NOTHING = 204  # grey value for NaN
CONCENTRATION, UNCERTAINTY = "inferno", "viridis"  # as in figures

Array = NDArray[Any]


def of_calibration(calibration: "Calibration") -> str:
    """HTML with the selection of rows and a map of the sensitivity."""
    seen = np.sqrt(np.square(calibration.basis * calibration.singular_values).sum(axis=1))
    image = seen.reshape(1, *calibration.grid)
    caption = f"signal {UNIT} over noise, 0 to {image.max():.3g}{_way(image)}"
    return _page(f"Calibration of {_named(calibration.facts)}", described(calibration), [(image, UNCERTAINTY)], caption)


def of_reconstruction(result: "Reconstruction") -> str:
    """HTML with numbers over all frames, and the first images above their uncertainty."""
    count = len(result)
    if not count:
        return _page("Reconstruction of no frames", {}, [], "")
    summary = Summary()
    summary.add(result)
    image, std = (np.asarray(values[:SHOWN]) for values in (result.image, result.std))
    largest = [float(np.nanmax(values, initial=0.0)) for values in (image, std)]
    caption = (
        f"the first {len(image)} of {count} frames" if count > SHOWN else "the frame" if count == 1 else "the frames"
    )
    caption += f", 0 to {largest[0]:.3g}, above their standard deviation, 0 to {largest[1]:.3g}{_way(image)}"
    rows = [(image, CONCENTRATION), (std, UNCERTAINTY)]
    return _page(f"Reconstruction of {shown(image.shape[1:])} voxels", summary.shown(), rows, caption)


def _page(title: str, facts: Mapping[str, Any], rows: Sequence[tuple[Array, str]], caption: str) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<div><b>{html.escape(title)}</b><table>{cells}</table>{_picture(rows, caption)}</div>"


def _picture(rows: Sequence[tuple[Array, str]], caption: str) -> str:
    """Rows of images (F, ny, nx) or (F, nz, ny, nx), each row with a colour scale from zero to its maximum."""
    if not rows:
        return ""
    try:
        from matplotlib import colormaps
        from PIL import Image
    except ImportError:
        return "<div>pip install 'mpi-fast[plots]' to see a picture here</div>"
    lines = []
    for images, colours in rows:
        planes = images.max(axis=1) if images.ndim == 4 else images
        planes = planes[:, ::-1]  # vertical axes point up
        largest = float(np.nanmax(planes, initial=0.0)) or 1.0
        coloured = np.round(255 * colormaps[colours](np.nan_to_num(planes) / largest)[..., :3]).astype(np.uint8)
        coloured[np.isnan(planes)] = NOTHING
        times = max(1, -(-SIZE // max(planes.shape[1:])))
        coloured = coloured.repeat(times, axis=1).repeat(times, axis=2)
        padded = np.pad(coloured, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
        lines.append(np.concatenate(list(padded), axis=1))
    file = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption)
    return f"<img alt='{text}' src='data:image/png;base64,{data}'><div><small>{text}</small></div>"


def _way(images: Array) -> str:
    return "; the maxima along the first axis" if images.ndim == 4 else ""


def _named(facts: Mapping[str, Any]) -> str:
    return str(facts.get("source") or facts.get("file") or "a system matrix")
