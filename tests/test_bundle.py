"""Bundles on disk: checked when opened, whole or not there, never executed."""

import json
import shutil
from pathlib import Path

import pytest

from mpi_fast.bundle import FORMAT, Bundle, write_bundle
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import InputError, ModelError

MANIFEST = {"grid": [19, 19], "sigma_range": [0.02, 10.0]}
CONTENTS = {"encoder.onnx": b"one", "score.onnx": b"two"}


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(Bundle.open().path, tmp_path / "model"))


def edit(folder: Path, **changes) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_bundled_model_says_where_it_comes_from():
    bundle = Bundle.open()
    assert bundle.grid == (19, 19)
    provenance = bundle.manifest["provenance"]
    assert provenance["command"].startswith("mpi-fast train --minutes")
    assert {"seed", "minutes", "hardware", "steps", "torch"} <= provenance.keys()
    assert max(row["relative"] for row in bundle.manifest["parity"]) < 1e-4
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 8 * 2**20


def test_written_and_opened(tmp_path):
    write_bundle(tmp_path / "b", MANIFEST, CONTENTS)
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["format"] == FORMAT
    assert bundle.read("score.onnx") == b"two"
    write_bundle(tmp_path / "b", MANIFEST, {**CONTENTS, "score.onnx": b"three"})
    assert Bundle.open(tmp_path / "b").read("score.onnx") == b"three"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["encoder.onnx", "score.onnx"])
def test_a_changed_file_is_refused(copy, name):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}.*SHA-256"):
        OnnxEngine(Bundle.open(copy))


def test_a_missing_file_is_refused(copy):
    (copy / "score.onnx").unlink()
    with pytest.raises(ModelError, match=r"score\.onnx"):
        OnnxEngine(Bundle.open(copy))


def test_what_onnx_runtime_cannot_load_is_refused(tmp_path):
    write_bundle(tmp_path / "b", MANIFEST, CONTENTS)
    with pytest.raises(ModelError, match="refuses"):
        OnnxEngine(Bundle.open(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": FORMAT + 1}, "update mpi-fast"),
        ({"format": FORMAT - 1}, "export its checkpoint again"),
        ({"kind": "something else"}, "not the manifest"),
        ({"grid": [19]}, "manifest"),
        ({"grid": [0, 19]}, "expected positive"),
        ({"sigma_range": [3, 1]}, "expected positive"),
        ({"files": {}}, "incomplete"),
    ],
)
def test_manifests_that_make_no_sense(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        Bundle.open(copy)


def test_not_a_bundle(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match="not the manifest"):
        Bundle.open(tmp_path)
    with pytest.raises(ModelError, match=r"mpi_fast\.export"):
        Bundle.open(tmp_path / "model.pt")


def test_nothing_else_is_overwritten_and_nothing_half_written_is_left(tmp_path):
    precious = tmp_path / "data"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not a model bundle"):
        write_bundle(precious, MANIFEST, CONTENTS)
    with pytest.raises(ModelError):
        write_bundle(tmp_path / "b", {**MANIFEST, "grid": []}, CONTENTS)
    with pytest.raises(InputError, match="no such folder"):
        write_bundle(tmp_path / "nowhere" / "b", MANIFEST, CONTENTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
