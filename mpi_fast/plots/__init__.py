"""Figures: reconstructions with scales, planes and volumes alike, beside truth and error where known.

Whether images are planes (..., ny, nx) or volumes (..., nz, ny, nx) shows in their shape: callers need not ask.

Matplotlib is imported inside the functions, for it is optional and slow to load, and used without pyplot: a figure is
an object that its function makes and `save` writes, and no global state or display is touched.

Each module uses only those further down::

    figures  curves  film    what callers ask for
    panels                   rows and columns of tiles, their labels and colour bars
    views                    what a tile shows of a plane or a volume, and where
    recording                films as GIF and MP4
    saving                   formats, and whether Matplotlib is there
"""

from mpi_fast.plots.curves import Strip, methods_figure
from mpi_fast.plots.figures import Column, comparison_figure, reconstruction_figure, resolution_figure
from mpi_fast.plots.film_frames import Film
from mpi_fast.plots.recording import record
from mpi_fast.plots.saving import FORMATS, require, save

__all__ = [
    "FORMATS",
    "Column",
    "Film",
    "Strip",
    "comparison_figure",
    "methods_figure",
    "reconstruction_figure",
    "record",
    "require",
    "resolution_figure",
    "save",
]
