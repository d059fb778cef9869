"""MDF v2.1 files, in and out: system matrices, measurements and reconstructions.

Reading is lazy. The readers deliver raw facts: spectra, and the order in which frames were acquired. They
undo what concerns storage alone (layout, frame permutation, voxel order, integer raw data) and nothing that
concerns physics: background correction, SNR and row selection belong to `mpi_fast.calibration`. Files are
written whole or not at all: a reader never sees half of one under its final name.

Spectra are plain, unnormalised `numpy.fft.rfft` over the V samples of one period, as MPIFiles.jl has them, so
time-domain and Fourier-domain files of one scanner agree. Frequency k lies at `Acquisition.frequencies[k]`.

Each module uses only those further down::

    system_matrix  measurement  reconstruction    one kind of file each: its reader and its writer
    reconstruction_file                           the reader of reconstructions
    signals                                       reading: frames, layout, spectra
    facts  sampling  scale  geometry              reading: acquisition, conversion to volts, grids
    write                                         writing: what all kinds of files contain
    specification                                 MDF v2.1 as a table, and `validate`
    file                                          an MDF file
    datasets                                      named datasets as numbers, flags, texts and lists
    hdf5  storage  access  rehearsal              HDF5: the only place that reads it; links, what may be opened
    acquisition  grid  types                      facts that all of them exchange

Nothing in a file is believed unchecked: whatever HDF5 makes of a damaged or malicious one is a `FileFormatError` that
names the file and the dataset, and what is odd but may be meant is a `FileWarning`, also kept in `notes`.
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
