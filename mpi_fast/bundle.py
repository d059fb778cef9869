"""A bundle: an exported model on disk, as a folder.

``manifest.json``
    ``format``          version of this layout and of what its graphs compute, see `FORMAT`
    ``kind``            "mpi-fast model"
    ``sigma_range``     [smallest, largest] noise level of the noisy images that the network was trained for
    ``parameters``      number of weights
    ``network``         widths and depths, see `training.network.PosteriorConfig`
    ``provenance``      how it was trained: command, seed, minutes, hardware
    ``checkpoint``      {"file", "sha256"}: the checkpoint that it was made from, relative to the bundle; not part of it
    ``frozen``          graphs of one calibration: [{"file", "rows", "rank", "source", "scanner", "evaluations"}], with
                        a hash of the scanner, see `frozen.fingerprint`
    ``constants``       numerical constants of the graphs, see `constants`
    ``statistics``      {file: nodes before and after simplification, operators, parameters, FLOPs, activation memory}
    ``parity``          difference of each artefact from the original: [{"artefact", "what", "largest", "relative",
                        "psnr_change_db", "allowed", "passed"}]
    ``engines``         TensorRT engines: [see `tensorrt_library.EngineFacts`]
    ``files``           {name: {"sha256": ..., "bytes": ...}}
    ``seal``            SHA-256 of the other entries, see `sealed`
``plane.onnx``, ``volume.onnx``
    the network: y (F, R), noise (F,), singular_values (R,), basis (nz, ny, nx, R), noisy (F, nz, ny, nx),
    precision (F,) -> image, std (F, nz, ny, nx), quantiles (F, 2), for frames, ranks and grids of any size; ``nz = 1``
    for planes; noisy and precision are zero for frames without a noisy image
``frozen.onnx``
    the same for one calibration, if exported: real (F, M), imag (F, M) -> image, std (F, *grid), quantiles (F, 2),
    snr_db (F,), noise_floor (F,); its metadata's ``selection`` lists the rows as [channel, frequency index]
``plane.fp16.onnx``, ``volume.fp16.onnx``, ``frozen.fp16.onnx``
    the same with float16 inside, if exported
``NAME.smCC.engine``, ``NAME.smCC.engine.log``
    TensorRT engine of ``NAME.onnx`` for compute capability CC, if built, and the log of TensorRT

Inputs and outputs are float32. The first three entries of the manifest, ``constants``, ``files`` and ``seal`` are
needed to open a bundle; readers of this format ignore unknown entries.

Every file is checked against its size and hash when it is read, and nothing in a bundle is ever unpickled or executed.
File names contain no folders, so all files are inside the bundle. Only the checkpoint may also be beside it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from mpi_fast.atomic_folder import atomic_folder
from mpi_fast.constants import constants, differences
from mpi_fast.errors import ModelError
from mpi_fast.reading import read_regular

FORMAT = 7
KIND = "mpi-fast model"
PACKAGED = "default"
PLANE, VOLUME, FROZEN = "plane.onnx", "volume.onnx", "frozen.onnx"
REQUIRED = PLANE, VOLUME
LARGEST_MANIFEST, LARGEST_FILE = 16 * 2**20, 2 * 2**30  # bytes; the latter is the limit of Protocol Buffers


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : dict
        The entries described at the head of this module.
    contents : dict of str to bytes
        Files of a bundle in memory; empty if they are read from its folder.
    """

    path: Path
    manifest: dict[str, Any]
    contents: dict[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, model: str | Path = PACKAGED) -> "Bundle":
        """Open a bundle and check its manifest.

        Parameters
        ----------
        model : str or Path
            A folder, or ``default`` for the bundle of the package.

        Raises
        ------
        ModelError
            For a folder that is not a bundle, for a broken manifest or one of another format, and for missing files.
        """
        path = packaged() if model == PACKAGED else Path(model)
        file = path / "manifest.json"
        if not file.is_file():
            hint = ""
            if path.suffix == ".pt":
                hint = f" (a checkpoint needs exporting first: python -m mpi_fast.export {path})"
            raise ModelError(f"{path}: not a model bundle, expected a folder with manifest.json{hint}")
        try:
            manifest = json.loads(read_regular(file, LARGEST_MANIFEST, "a manifest", ModelError))
            if manifest["kind"] != KIND:
                raise KeyError("kind")
            version = int(manifest["format"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(f"{file}: not the manifest of a model bundle ({type(error).__name__}: {error})") from error
        if version > FORMAT:
            raise ModelError(f"{file}: bundle format {version}, this version reads {FORMAT}: update mpi-fast")
        if version < FORMAT:
            raise ModelError(
                f"{file}: bundle format {version}, this version reads {FORMAT}: export its checkpoint again"
            )
        if manifest != sealed(manifest):
            raise ModelError(f"{file}: its seal is not that of its entries: the manifest is damaged or was changed")
        try:
            low, high = (float(s) for s in manifest["sigma_range"])
            made_with = dict(manifest["constants"])
            files_listed = dict(manifest["files"])
            for name in REQUIRED:
                str.encode(files_listed[name]["sha256"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(f"{file}: incomplete manifest ({type(error).__name__}: {error})") from error
        if not 0 < low < high < math.inf:
            raise ModelError(
                f"{file}: noise levels {manifest['sigma_range']}: expected two positive numbers, the larger one last"
            )
        if made_with != constants():
            raise ModelError(
                f"{path}: its graphs were made with other constants than this version's: {differences(made_with)}: "
                "export its checkpoint again: python -m mpi_fast.export CHECKPOINT"
            )
        outside = [name for name in files_listed if not _is_plain(name)]
        if outside:
            raise ModelError(f"{file}: lists {outside[0]!r}: expected the plain names of files in the bundle")
        return cls(path, manifest)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with an absolute path, which other processes find from any working folder."""
        return {"path": self.path.resolve(), "manifest": self.manifest, "contents": self.contents}

    def in_memory(self) -> "Bundle":
        """A copy that includes the contents of its files, for machines without its folder."""
        return replace(self, contents={name: self.read(name) for name in self.manifest["files"]})

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network was trained for."""
        low, high = self.manifest["sigma_range"]
        return float(low), float(high)

    def checkpoint(self) -> Path:
        """The checkpoint that the bundle was made from, for code that needs its weights.

        Raises
        ------
        ModelError
            If it is neither in the bundle nor beside it, or if it is another one.
        """
        try:
            entry = self.manifest["checkpoint"]
            named, expected = PurePath(entry["file"]), entry["sha256"]
        except (KeyError, TypeError) as error:
            raise ModelError(f"{self.path}: the manifest names no checkpoint; export it again") from error
        if not _is_plain(named.name) or named.parent not in (PurePath(), PurePath("..")):
            raise ModelError(
                f"{self.path}: its checkpoint is {str(named)!r}, which is not followed: put it into the folder that "
                "the bundle is in, and export it again"
            )
        path = self.path / named
        content = read_regular(path, LARGEST_FILE, f"the checkpoint that {self.path} was made from", ModelError)
        if hashlib.sha256(content).hexdigest() != expected:
            raise ModelError(f"{path}: not the checkpoint that {self.path} was made from: its SHA-256 differs")
        return path

    def read(self, name: str) -> bytes:
        """Content of one file, checked against its size and hash.

        Raises
        ------
        ModelError
            If it is missing or differs from the manifest.
        """
        file, listed = self.path / name, self.manifest["files"].get(name)
        if not _is_plain(name) or not isinstance(listed, dict):
            raise ModelError(f"{file}: the manifest lists no such file")
        size = listed.get("bytes", LARGEST_FILE)
        if not isinstance(size, int) or not 0 <= size <= LARGEST_FILE:
            raise ModelError(f"{file}: the manifest says {size!r} bytes: expected 0 to {LARGEST_FILE}")
        content = self.contents.get(name)
        if content is None:
            content = read_regular(file, size, "a file of the bundle", ModelError)
        if hashlib.sha256(content).hexdigest() != listed.get("sha256"):
            raise ModelError(f"{file}: its SHA-256 is not the manifest's: the file is damaged or was changed")
        return content


def packaged() -> Path:
    """Folder of the bundle in the package."""
    return Path(str(files("mpi_fast") / "models" / PACKAGED))


def half_name(name: str) -> str:
    """Name of the float16 version of an ONNX file."""
    return f"{name.removesuffix('.onnx')}.fp16.onnx"


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its checksum: the SHA-256 of its other entries as JSON, sorted and without blanks."""
    entries = {name: value for name, value in manifest.items() if name != "seal"}
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return {**entries, "seal": hashlib.sha256(text.encode()).hexdigest()}


def _is_plain(name: str) -> bool:
    """Whether a name contains no folder, on any operating system."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0")


def write_bundle(path: Path, manifest: Mapping[str, Any], contents: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, which appears under its name when it is complete. It replaces nothing but an existing bundle.

    Raises
    ------
    InputError
        If ``path`` exists and is not a bundle, or if its parent is missing.
    """
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
    full = sealed({"format": FORMAT, "kind": KIND, "constants": constants(), **manifest, "files": listed})
    with atomic_folder(path, _has_manifest, "a model bundle") as temporary:
        temporary.mkdir()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        (temporary / "manifest.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
        opened = Bundle.open(temporary)  # a bundle that cannot be opened is not written
    return Bundle(path, opened.manifest)


def _has_manifest(path: Path) -> bool:
    return (path / "manifest.json").is_file()
