"""CSV: one line for each frame and region.

For the voxels of a region, the table gives mean, sum and maximum, in the unit of the images, and the uncertainty of the
mean. The correlation between errors of neighbouring voxels is unknown for a single image, so there are two estimates:
``std_independent`` assumes independent errors and is too small; ``std_common`` assumes errors of the same sign and is
too large. For the sum, multiply both by the number of voxels. The volume is empty if the thickness of a plane is
unknown.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpi_fast.atomic import atomic_path
from mpi_fast.formats.regions import whole
from mpi_fast.formats.series import Series


def require(path: Path) -> None:
    """No optional library is needed."""


def files(path: Path) -> Sequence[Path]:
    """One file."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Write the regions of a series, or one region of all voxels if it has none."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = _rows(series)
        first = next(rows, None)
        if first is not None:
            table = csv.DictWriter(file, list(first))
            table.writeheader()
            table.writerow(first)
            table.writerows(rows)


def _rows(series: Series) -> Iterator[dict[str, Any]]:
    regions, known = series.regions or (whole(series.grid),), series.columns()
    numbers, times = series.numbers, series.times
    voxel = 1e9 * float(np.prod(np.abs(series.grid.extent) / series.grid.size))  # 0 if a thickness is unknown
    for part in series.chunks():
        images = np.asarray(series.image[part], np.float64)
        std = None if series.std is None else np.asarray(series.std[part], np.float64)
        for index in range(len(images)):
            at = part.start + index
            frame = {"frame": int(numbers[at])} | ({} if times is None else {"time_s": float(times[at])})
            rest = {name: values[at].item() for name, values in known.items() if name not in ("frame", "time")}
            for region in regions:
                values = images[index][region.mask]
                volume = float(f"{voxel * values.size:.6g}") if voxel > 0 else None
                row = {"region": region.name, "voxels": values.size, "volume_mm3": volume, "mean": float(values.mean())}
                if std is not None:
                    spread = std[index][region.mask]
                    row["std_independent"] = float(np.sqrt(np.square(spread).sum()) / values.size)
                    row["std_common"] = float(spread.mean())
                row |= {"sum": float(values.sum()), "maximum": float(values.max())}
                yield {**frame, **row, **rest}
