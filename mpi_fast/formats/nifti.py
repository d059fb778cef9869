"""NIfTI, the format of programs for medical images; the uncertainty is written to a second file.

The axes are x, y, z and the frames. Voxel sizes and the affine are in mm, in the coordinates of the scanner; left and
right of a patient are unknown. The time between frames is in s; it is 0 for unknown, as where frames are missing. The
header contains the provenance as JSON.
"""

import gzip
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

import mpi_fast
from mpi_fast.atomic import atomic_path
from mpi_fast.formats.common import affine, require_library, with_std
from mpi_fast.formats.series import Images, Series

LARGEST = 2**15 - 1  # longest axis in NIfTI-1; longer series are written as NIfTI-2


def require(path: Path) -> None:
    """Require nibabel."""
    require_library(path, "nifti", "nibabel")


def files(path: Path) -> Sequence[Path]:
    """One file for the images, and one for their uncertainty."""
    return path, with_std(path, ".nii.gz" if path.suffix.lower() == ".gz" else ".nii")


def save(path: Path, series: Series) -> None:
    """Write images and uncertainty."""
    with ExitStack() as stack:
        for target, name, images in zip(files(path), ("concentration", "std"), (series.image, series.std), strict=True):
            if images is None:
                continue
            temporary = stack.enter_context(atomic_path(target))
            opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
            with opened(temporary, "wb") as file:
                _write(file, series, name, images)


def _write(file: IO[bytes], series: Series, name: str, images: Images) -> None:
    """Write a header and then the voxels, x fastest, as they lie in memory."""
    header = _header(series, name, images)
    header.write_to(file)
    file.write(bytes(header.get_data_offset() - file.tell()))
    for part in series.chunks():
        file.write(np.ascontiguousarray(images[part], "<f4").tobytes())


def _header(series: Series, name: str, images: Images) -> Any:
    import nibabel

    longest = max(*series.grid.size, len(series))
    kind: Any = nibabel.Nifti1Header if longest <= LARGEST else nibabel.Nifti2Header
    header = kind(endianness="<")
    header.set_data_dtype(np.float32)
    header.set_data_shape((*series.grid.size, len(series)))
    matrix = affine(series.grid)
    header.set_zooms((*np.diag(matrix)[:3], series.interval or 0.0))
    header.set_qform(matrix, code="scanner")
    header.set_sform(matrix, code="scanner")
    header.set_xyzt_units("mm", "sec")
    header.set_intent("estimate", name=name)
    header.set_slope_inter(1.0, 0.0)
    header["descrip"] = f"mpi-fast {mpi_fast.__version__}, {name} {series.unit}"[:79].encode()
    times = series.times
    header["toffset"] = 0.0 if times is None or not len(times) else times[0]
    header["cal_max"] = max((np.nanmax(images[part], initial=0.0) for part in series.chunks()), default=0.0)
    note = json.dumps(dict(series.provenance)).encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", note))
    return header
