"""A calibration on disk: an HDF5 file with a checksum, whose parts must be consistent.

The file begins with a block that HDF5 skips. It contains the SHA-256 of the rest of the file, which is checked before
HDF5 reads anything, so that a damaged, truncated or edited file is always refused. Then follow these datasets:

``kind``, ``format``   "mpi-fast calibration", and the version of this layout, see `FORMAT`
``facts``              `Calibration.facts` as JSON
``stated``             `Calibration.acquisition` and the flags beside it as JSON
``grid``, ``field_of_view``
the arrays             `FIELDS`: type and shape of each, in terms of the sizes below

    C, K    receive channels, frequencies         M    selected rows
    N, R    voxels, rank                          G    axes of the grid

Readers of this format ignore unknown datasets. To store another attribute of `Calibration`, add a line to `FIELDS`.

Files of format 1 have no checksum. They are read if their arrays are consistent, as those of all files must be, see
`calibration_fields`. This check does not detect singular values that were made smaller.
"""

import hashlib
import json
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpi_fast.atomic import atomic_path
from mpi_fast.calibration_fields import FIELDS, Field, check_facts, check_fields, damaged
from mpi_fast.errors import FileFormatError
from mpi_fast.hdf5_output import OutputFile
from mpi_fast.mdf import Acquisition, Datasets
from mpi_fast.mdf.access import rehearse_if_untrusted
from mpi_fast.mdf.acquisition_text import from_plain, to_plain

FORMAT = 2
KIND = "mpi-fast calibration"
MAGIC = b"mpi-fast calibration, sha256 "
HEADER = 512  # bytes, the smallest block that HDF5 skips


STORED_TEXT = 2**26  # bytes of JSON; a scanner's transfer function takes 2**17
FLAGS = "transfer_function_corrected", "noise_known"
TUPLES = "grid", "field_of_view"  # tuples of plain numbers in memory


def is_calibration(path: str | Path) -> bool:
    """Whether a file is a saved calibration, possibly damaged, rather than MDF.

    Raises
    ------
    FileFormatError
        If it is neither: missing, a folder, or not HDF5.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as raw:
            if raw.read(len(MAGIC)) == MAGIC:
                return True
    with closing(Datasets(path)) as datasets:
        return datasets.has("kind")


def write_calibration(path: str | Path, content: dict[str, Any]) -> None:
    """Write the fields of a calibration, ``facts`` among them; the file appears under its name when it is complete."""
    with atomic_path(path) as temporary:
        # From this version on, HDF5 also protects its own structures by checksums.
        with OutputFile(temporary, libver=("v110", "v110"), userblock_size=HEADER) as file:
            file["kind"], file["format"] = np.bytes_(KIND), FORMAT
            file["facts"] = np.bytes_(json.dumps(content["facts"]).encode())
            file["stated"] = np.bytes_(json.dumps(_stated(content)).encode())
            for field in FIELDS:
                file[field.name] = content[field.name]
        seal(temporary)


def seal(path: Path) -> None:
    """Write the header: the SHA-256 of the rest of the file."""
    with path.open("r+b") as file:
        header = MAGIC + _digest(file) + b"\n"
        file.seek(0)
        file.write(header.ljust(HEADER, b"\0"))


def read_calibration(path: str | Path) -> dict[str, Any]:
    """Read and check a file that `write_calibration` wrote.

    Raises
    ------
    FileFormatError
        For a file that is missing, not a regular file, not a calibration, damaged, of a newer format, or inconsistent;
        the message names the field.
    """
    path = Path(path)
    with _opened(path) as (file, sealed):
        _check_version(path, file, sealed)
        content = {field.name: _array(path, file, field) for field in FIELDS}
        content["facts"] = check_facts(path, _facts(path, file, "facts"))
        content |= _read_stated(path, file, content["facts"])
    check_fields(path, content)
    return {name: tuple(value.tolist()) if name in TUPLES else value for name, value in content.items()}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """The HDF5 file, and whether it has a valid checksum."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileFormatError(f"{path}: not a file; a calibration saved by mpi-fast was expected")
        with path.open("rb") as raw:
            header = raw.read(HEADER)
            sealed = header.startswith(MAGIC)
            if sealed and header[len(MAGIC) :].split(b"\n")[0] != _digest(raw):
                raise FileFormatError(
                    f"{path}: its SHA-256 is not the one it was saved with: the file is damaged, cut short or was "
                    "changed; calibrate again, or copy it again"
                )
            rehearse_if_untrusted(path)  # anybody can write a valid checksum
            raw.seek(0)
            # HDF5 reads the same open file that was hashed, even if its name changes meanwhile.
            with h5py.File(raw, "r") as file:
                yield file, sealed
    except FileFormatError:
        raise
    except Exception as error:  # h5py and HDF5 raise many kinds of errors for damaged files
        problem = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path}: cannot be read as a calibration: {problem}") from error


def _digest(file: BufferedReader | BufferedRandom) -> bytes:
    file.seek(HEADER)
    return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _check_version(path: Path, file: Any, sealed: bool) -> None:
    if "kind" not in file or "format" not in file:
        raise FileFormatError(
            f"{path}: not a calibration saved by mpi-fast; a system matrix in MDF needs mpi-fast calibrate"
        )
    if _text(path, file, "kind") != KIND:
        raise FileFormatError(f"{path}: kind: expected '{KIND}'")
    version = int(_array(path, file, Field("format", "i", "")))
    if version > FORMAT:
        raise FileFormatError(f"{path}: calibration format {version}, this version reads up to {FORMAT}")
    if version < 1 or (version > 1 and not sealed):
        raise FileFormatError(f"{path}: calibration format {version} without its header: the file is damaged")


def _array(path: Path, file: Any, field: Field) -> Any:
    """Read a dataset, without allocating more than the file contains."""
    try:
        dataset = _dataset(file, field.name)
        if dataset.dtype.kind != field.kind or len(dataset.shape) != len(field.shape):
            raise ValueError(f"is {dataset.dtype} {dataset.shape}")
        return dataset[()]
    except Exception as error:  # of any kind, see `_opened`
        raise damaged(path, field.name, error) from error


def _dataset(file: Any, name: str) -> Any:
    """A dataset whose values are in this file; ValueError otherwise. Links are not followed."""
    link = file.get(name, getclass=True, getlink=True)
    if link is not h5py.HardLink:
        raise ValueError("is missing" if link is None else "is a link; a dataset was expected")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError("is no dataset with values")
    if dataset.is_virtual or dataset.external or dataset.nbytes > dataset.id.get_storage_size():
        raise ValueError(f"declares {dataset.nbytes} bytes, and the file holds {dataset.id.get_storage_size()}")
    return dataset


def _text(path: Path, file: Any, name: str) -> str:
    try:
        dataset = _dataset(file, name)
        if dataset.shape or dataset.dtype.kind not in "SO" or dataset.nbytes > STORED_TEXT:
            raise ValueError(f"is {dataset.dtype} {dataset.shape}; a text was expected")
        value = dataset[()]
        return bytes(value).decode() if isinstance(value, bytes) else str(value)
    except Exception as error:  # of any kind, see `_opened`
        raise damaged(path, name, error) from error


def _facts(path: Path, file: Any, name: str) -> dict[str, Any]:
    try:
        facts = json.loads(_text(path, file, name))
    except (ValueError, RecursionError) as error:
        raise damaged(path, name, error) from error
    if not isinstance(facts, dict):
        raise damaged(path, name, "an object was expected")
    return facts


def _stated(content: dict[str, Any]) -> dict[str, Any]:
    """Acquisition parameters of the matrix, as JSON values."""
    acquisition = content["acquisition"]
    flags = {name: bool(content[name]) for name in FLAGS}
    return {"acquisition": None if acquisition is None else to_plain(acquisition), **flags}


def _read_stated(path: Path, file: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Read the result of `_stated`; older files have a few of these values in their facts."""
    if "stated" not in file.keys():  # noqa: SIM118 (a dangling link is a member, too)
        return {"acquisition": _from_facts(facts), **{name: facts.get(name) is True for name in FLAGS}}
    stated = _facts(path, file, "stated")
    try:
        plain = stated["acquisition"]
        acquisition = None if plain is None else from_plain(plain)
        return {"acquisition": acquisition, **{name: bool(stated[name]) for name in FLAGS}}
    except Exception as error:  # of any kind, see `_opened`
        raise damaged(path, "stated", error) from error


def _from_facts(facts: dict[str, Any]) -> Acquisition | None:
    """Acquisition from a file of release 0.1, which has few values; the others are NaN, which means unknown."""
    try:
        divider = np.asarray(facts["divider"], np.int64).reshape(-1, 1)
        return Acquisition(
            base_frequency=np.nan,
            divider=divider,
            strength=np.asarray(facts["strength"], np.float64).reshape(1, *divider.shape),
            phase=np.full((1, *divider.shape), np.nan),
            gradient=None,
            bandwidth=float(facts["bandwidth"]),
            num_samples=int(facts["num_samples"]),
            num_channels=int(facts["num_channels"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
