"""Every error that this package raises on purpose.

Each message says what was wrong, where, and what was expected. The command line prints the message unchanged and exits
with code 2. Any other exception is a bug.
"""


class MPIFastError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InputError(MPIFastError, ValueError):
    """An argument or an array is malformed: wrong shape, NaN or Inf, out of range."""


class NoImagesError(InputError):
    """All frames were skipped, and no image is left to write; another run of the same command would not help."""


class OutputError(MPIFastError, OSError):
    """A file cannot be written although its name is valid: the disk is full, or a quota is used up."""


class FileFormatError(MPIFastError):
    """A file is missing, truncated, foreign, or lacks a required field."""


class MismatchError(MPIFastError):
    """Two things do not fit together: a measurement and a calibration, a model and a grid."""


class DeviceError(MPIFastError):
    """A GPU, or software needed to use one, is missing, out of memory or lost."""


class LiveError(MPIFastError):
    """A live stream cannot take a frame: too many frames wait, the stream is closed, or it has failed."""


class ModelError(MPIFastError):
    """A checkpoint or a bundle is broken: bad hash, missing keys, unknown version."""


class MPIFastWarning(UserWarning):
    """The result depends on an automatic decision or on a doubtful value; the command line prints it as a note."""


class FileWarning(MPIFastWarning):
    """A file contains something unusual that may be intended, such as frames of zeros."""
