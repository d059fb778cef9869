"""Check the zip archive of a ``model.pt`` before PyTorch reads it; PyTorch is not needed here.

PyTorch trusts the archive: it checks neither the CRCs nor the real size of a tensor. Here every member is read once.
Members must be uncompressed, as PyTorch writes them, so that none is larger than the file, and the pickle, which
describes the objects, must be small.
"""

import io
import zipfile
from pathlib import Path

from mpi_fast.errors import ModelError
from mpi_fast.reading import read_regular

LARGEST_FILE = 256 * 2**20  # bytes; a network has a few MB
LARGEST_PICKLE = 2**20  # names and shapes: a network has some 30 kB
EXPECTED = "a checkpoint (model.pt) written by mpi-fast train"


def read_archive(path: str | Path, largest: int = LARGEST_FILE) -> tuple[bytes, list[int]]:
    """The content of an archive of torch's, and the sizes of the storages of numbers in it, in bytes.

    Raises
    ------
    ModelError
        For a file that is missing, not a regular file, too large, not such an archive, or damaged; the message names
        the member.
    """
    content = read_regular(path, largest, EXPECTED, ModelError)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            pickles = [one for one in members if one.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or len({one.filename for one in members}) != len(members):
                raise ModelError(f"{path}: a zip archive, but no checkpoint of torch's; expected {EXPECTED}")
            packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED or one.flag_bits & 1]
            if packed or sum(one.file_size for one in members) > len(content):
                raise ModelError(f"{path}: declares more than it holds; expected members that are not compressed")
            if pickles[0].file_size > LARGEST_PICKLE:
                raise ModelError(
                    f"{path}: {pickles[0].filename}: {pickles[0].file_size} bytes, expected a few thousand"
                )
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a checkpoint, or damaged: {error}; nothing was executed") from error
    if broken:
        raise ModelError(f"{path}: {broken}: its CRC is wrong: the file is damaged; copy it again")
    return content, [one.file_size for one in members if "/data/" in one.filename]
