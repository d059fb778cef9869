"""Every error this package raises on purpose.

The message of each says what was wrong, where, and what was expected; the command line prints it as it stands
and exits with code 2. Anything else that escapes is a bug.
"""


class MPIFastError(Exception):
    """Base class of all errors the package raises on purpose."""


class InputError(MPIFastError, ValueError):
    """An argument or an array is malformed: wrong shape, NaN or Inf, out of range."""


class OutputError(MPIFastError, OSError):
    """A file cannot be written, though nothing is wrong with its name: the disk is full, or a quota is used up."""


class FileFormatError(MPIFastError):
    """A file is missing, truncated, foreign, or lacks a required field."""


class MismatchError(MPIFastError):
    """Two things do not fit together: a measurement and a calibration, a model and a grid."""


class DeviceError(MPIFastError):
    """A GPU, or what is needed to use one, is missing, exhausted or lost."""


class LiveError(MPIFastError):
    """A live stream cannot take a frame: too many wait already, it is closed, or it has failed."""


class ModelError(MPIFastError):
    """A checkpoint or a bundle is broken: bad hash, missing keys, unknown version."""


class MPIFastWarning(UserWarning):
    """Something that the result depends on was decided, or is doubtful; the command line prints it as a note."""


class FileWarning(MPIFastWarning):
    """Something in a file is odd, but may be meant: frames of zeros, say."""
