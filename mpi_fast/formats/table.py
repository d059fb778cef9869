"""CSV: a line for each frame and each region of it.

Of the voxels of a region, the mean, the sum and the maximum, in the unit of the images, and how uncertain the mean is.
How the errors of neighbours go together is not known of each image, so there are two estimates: ``std_independent`` as
if they were independent, which is too small, and ``std_common`` as if all had the same sign, which is too large. Those
of the sum are these times the number of voxels.
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
    """Nothing that is not always there."""


def files(path: Path) -> Sequence[Path]:
    """One file."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Write the regions of a series; those of all its voxels where it has none."""
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
    volume = 1e9 * float(np.prod(np.asarray(series.grid.extent) / series.grid.size))
    for part in series.chunks():
        images = np.asarray(series.image[part], np.float64)
        std = None if series.std is None else np.asarray(series.std[part], np.float64)
        for index in range(len(images)):
            at = part.start + index
            frame = {"frame": int(numbers[at])} | ({} if times is None else {"time_s": float(times[at])})
            rest = {name: values[at].item() for name, values in known.items() if name not in ("frame", "time")}
            for region in regions:
                values = images[index][region.mask]
                row = {"region": region.name, "voxels": values.size, "volume_mm3": float(f"{volume * values.size:.6g}")}
                row |= {"mean": float(values.mean())}
                if std is not None:
                    spread = std[index][region.mask]
                    row["std_independent"] = float(np.sqrt(np.square(spread).sum()) / values.size)
                    row["std_common"] = float(spread.mean())
                row |= {"sum": float(values.sum()), "maximum": float(values.max())}
                yield {**frame, **row, **rest}
