"""Read and write MDF v2.1 files: system matrices, measurements and reconstructions.

Reading is lazy. The readers return spectra and the order in which frames were acquired. They handle storage (layout,
frame permutation, voxel order, integer raw data) but no physics: background correction, SNR and row selection are part
of `mpi_fast.calibration`. Files are written completely or not at all; no incomplete file appears under its final name.

Spectra are plain, unnormalised `numpy.fft.rfft` over the V samples of one period, as in MPIFiles.jl, so that
time-domain and Fourier-domain files of one scanner agree. Frequency k lies at `Acquisition.frequencies[k]`.

Each module uses only those beside it and further down::

    system_matrix  measurement                    reader and writer of one kind of file each
    reconstruction_output  reconstruction_file    writer and reader of reconstructions
    signals                                       reading: frames, layout, spectra
    facts  scale  geometry                        reading: acquisition, conversion to volts, grids
    period_length                                 reading: what determines the length of a period
    write                                         writing: the common content of all kinds of files
    specification                                 MDF v2.1 as a table, and `validate`
    file                                          an MDF file
    datasets                                      named datasets as numbers, flags, texts and lists
    hdf5  heaps  storage  access  rehearsal       HDF5: links, storage, permitted files
    acquisition  acquisition_text                 acquisition parameters, also as JSON
    grid  array_types                             data that all modules exchange

Everything in a file is checked. Any error of HDF5 on a damaged or malicious file becomes a `FileFormatError` that names
the file and the dataset. Unusual but possible content raises a `FileWarning`, which is also kept in `notes`.
"""

from mpi_fast.mdf.access import Access, access, open_hdf5
from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.datasets import Datasets
from mpi_fast.mdf.grid import Grid
from mpi_fast.mdf.measurement import MeasurementFile, write_measurement
from mpi_fast.mdf.reconstruction_file import PER_FRAME, ReconstructionFile, read_reconstruction
from mpi_fast.mdf.reconstruction_output import ReconstructionWriter, write_reconstruction
from mpi_fast.mdf.specification import validate
from mpi_fast.mdf.system_matrix import SystemMatrixFile, write_system_matrix
from mpi_fast.mdf.write import Metadata

__all__ = [
    "PER_FRAME",
    "Access",
    "Acquisition",
    "Datasets",
    "Grid",
    "MeasurementFile",
    "Metadata",
    "ReconstructionFile",
    "ReconstructionWriter",
    "SystemMatrixFile",
    "access",
    "open_hdf5",
    "read_reconstruction",
    "validate",
    "write_measurement",
    "write_reconstruction",
    "write_system_matrix",
]
