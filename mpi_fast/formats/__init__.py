"""Output formats: write a series of images as files whose suffix selects the format.

    with writing([Path("images.mdf"), Path("images.npz")], Header(grid, acquisition)) as writer:
        for result in reconstruct.stream(rows):
            writer.append(result, rows.numbers, rows.times)

    with Series.open("images.mdf") as series:
        save("images.npz", series)

Each module uses only those further down::

    writer                  writing while images are made
    registry                suffix -> format
    mdf  nifti  zarr  matlab_numpy  table  picture  film    one format each; `registry.Format` is their interface
    series  regions         input of all formats
    common                  shared helpers
"""

from mpi_fast.formats.regions import Region, regions_of
from mpi_fast.formats.registry import FORMATS, check, format_of, only_written, save
from mpi_fast.formats.series import Series
from mpi_fast.formats.writer import Header, Writer, writing

__all__ = [
    "FORMATS",
    "Header",
    "Region",
    "Series",
    "Writer",
    "check",
    "format_of",
    "only_written",
    "regions_of",
    "save",
    "writing",
]
