"""Figures: reconstructions with scales, planes and volumes alike, beside truth and error where known.

The shape of images shows whether they are planes (..., ny, nx) or volumes (..., nz, ny, nx).

Matplotlib is imported inside the functions because it is optional and slow to load. It is used without pyplot: a figure
is an object that a function returns and `save` writes, without global state or a display.

Each module uses only those further down::

    figures  curves  film_frames    figures for callers
    recording                       films as GIF and MP4
    panels                          rows and columns of tiles, their labels and colour bars
    views                           the views of a plane or a volume in a tile
    saving                          formats, and a check for Matplotlib
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
