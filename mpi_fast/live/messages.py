"""Messages to the page: first its layout, then images, and regularly the state of the stream.

Images are binary and little-endian: the length of the header (uint32), the header in JSON, padded with spaces to a
multiple of four bytes, and float32 maps. For each image these are the maps of the concentration, then those of the
uncertainty. The maps of a volume are its maximum projections along its three axes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpi_fast.live.frames import LiveImage
from mpi_fast.mdf import Grid
from mpi_fast.plots.views import Panel, Tile


@dataclass(frozen=True)
class Picture:
    """An image for the page: facts for its header, and its maps."""

    facts: dict[str, Any]
    maps: bytes


class Pictures:
    """Converts images on one grid to pictures."""

    def __init__(self, grid: Grid) -> None:
        self._shape = grid.shape
        self._panels: tuple[Panel, ...] = Tile.of(grid.field_of_view, grid.axes, 1.0).panels

    def views(self) -> list[dict[str, Any]]:
        """The names of each map's vertical and horizontal axis, rows, columns, and size in mm along both axes."""
        empty = np.zeros(self._shape)
        return [
            {
                "axes": panel.axes,
                "rows": panel.of(empty, "projection").shape[0],
                "columns": panel.of(empty, "projection").shape[1],
                "size_mm": list(panel.size),
            }
            for panel in self._panels
        ]

    def of(self, image: LiveImage) -> Picture:
        """The picture of an image."""
        maps = [panel.of(array, "projection") for array in (image.image, image.std) for panel in self._panels]
        facts = {
            "number": image.number,
            "period": image.period,
            "timestamp": _number(image.timestamp),
            "latency_ms": _number(image.latency_ms),
            "snr_db": _number(image.snr_db),
            "averaged": image.averaged,
            "flags": image.flag_names,
            "error": image.error,
        }
        return Picture(facts, b"".join(np.ascontiguousarray(one, "<f4").tobytes() for one in maps))


def pack(pictures: Sequence[Picture], skipped: int) -> bytes:
    """One message of some pictures; ``skipped`` others were not sent because the client was slow."""
    header = json.dumps({"images": [one.facts for one in pictures], "skipped": skipped}, allow_nan=False).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([len(header).to_bytes(4, "little"), header, *(one.maps for one in pictures)])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
