"""Bundles on disk are checked when opened, appear complete or not at all, and are never executed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from victims import INPUTS, identity

from mpi_fast.bundle import FORMAT, PLANE, VOLUME, Bundle, sealed, write_bundle
from mpi_fast.engines.external_data import has_external_data
from mpi_fast.errors import InputError, ModelError
from mpi_fast.pipelines.graph import Prior

MANIFEST = {"sigma_range": [0.02, 10.0]}
FILES = {name: {"sha256": ""} for name in (PLANE, VOLUME)}
CONTENTS = {PLANE: b"one", VOLUME: b"two"}
GRIDS = {PLANE: (9, 8), VOLUME: (5, 6, 7)}  # grids of the test images


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(Bundle.open().path, tmp_path / "model"))


def edit(folder: Path, **changes) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(sealed({**json.loads(file.read_text()), **changes})))


def test_the_bundled_model_says_where_it_comes_from():
    bundle = Bundle.open()
    provenance = bundle.manifest["provenance"]
    assert provenance["command"].startswith("mpi-fast train ")
    assert {"seed", "minutes", "hardware", "steps", "torch"} <= provenance.keys()
    assert max(row["relative"] for row in bundle.manifest["parity"]) < 1e-4
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 8 * 2**20


def test_written_and_opened(tmp_path):
    write_bundle(tmp_path / "b", MANIFEST, CONTENTS)
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["format"] == FORMAT
    assert bundle.read(VOLUME) == b"two"
    write_bundle(tmp_path / "b", MANIFEST, {**CONTENTS, VOLUME: b"three"})
    assert Bundle.open(tmp_path / "b").read(VOLUME) == b"three"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", [PLANE, VOLUME])
def test_a_changed_file_is_refused(copy, name):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}.*SHA-256"):
        Prior(Bundle.open(copy), GRIDS[name])


def test_a_missing_file_is_refused(copy):
    (copy / PLANE).unlink()
    with pytest.raises(ModelError, match=r"plane\.onnx"):
        Prior(Bundle.open(copy), GRIDS[PLANE])


def test_what_onnx_runtime_cannot_load_is_refused(tmp_path):
    write_bundle(tmp_path / "b", MANIFEST, CONTENTS)
    with pytest.raises(ModelError, match=r"plane\.onnx: not an ONNX model|refuses"):
        Prior(Bundle.open(tmp_path / "b"), GRIDS[PLANE])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": FORMAT + 1}, "update mpi-fast"),
        ({"format": FORMAT - 1}, "export its checkpoint again"),
        ({"kind": "something else"}, "not the manifest"),
        ({"sigma_range": [3, 1]}, "expected two positive"),
        ({"sigma_range": [0.02, 1e999]}, "expected two positive"),
        ({"sigma_range": [0.02]}, "incomplete"),
        ({"sigma_range": None}, "incomplete"),
        ({"constants": None}, "incomplete"),
        ({"constants": {}}, "other constants than this version's"),
        ({"files": {}}, "incomplete"),
        ({"files": [1]}, "incomplete"),
        ({"files": {**FILES, "../elsewhere.onnx": {}}}, "plain names"),
        ({"files": {**FILES, "/etc/hostname": {}}}, "plain names"),
        ({"files": {**FILES, "C:\\x": {}}}, "plain names"),
    ],
)
def test_manifests_that_make_no_sense(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        Bundle.open(copy)


@pytest.mark.parametrize("entry", ["seal", "constants"])
def test_a_manifest_without_what_protects_it_is_refused(copy, entry):
    file = copy / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest[entry]
    file.write_text(json.dumps(sealed(manifest) if entry == "constants" else manifest))
    with pytest.raises(ModelError, match="its seal is not that" if entry == "seal" else "incomplete manifest"):
        Bundle.open(copy)


def test_every_flipped_bit_of_a_manifest_is_seen_or_harmless(tmp_path):
    write_bundle(tmp_path / "b", MANIFEST, CONTENTS)
    expected, file = Bundle.open(tmp_path / "b"), tmp_path / "b" / "manifest.json"
    raw, refused = file.read_bytes(), 0
    for place in range(len(raw)):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 7]) + raw[place + 1 :])
        try:
            found = Bundle.open(tmp_path / "b")
        except ModelError:
            refused += 1
            continue
        assert found.sigma_range == expected.sigma_range
        assert all(found.read(name) == content for name, content in CONTENTS.items())
    assert refused > 0.8 * len(raw)  # the others are in blanks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "not the manifest"),
        (b"\xff\xfe", "not the manifest"),
        (b"3", "not the manifest"),
        (b'{"kind": "mpi-fast model", "format": 1e999}', "not the manifest"),
        (b"{" + b" " * (17 << 20) + b"}", "of at most 16777216"),
    ],
)
def test_manifests_that_are_none(tmp_path, content, message):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Bundle.open(tmp_path)


def test_what_is_no_file_or_too_large_is_not_read(copy):
    plane = copy / PLANE
    plane.write_bytes(plane.read_bytes() + b"more")
    with pytest.raises(ModelError, match=r"plane\.onnx: .* bytes, expected a file of the bundle, of at most"):
        Bundle.open(copy).read(PLANE)
    plane.unlink()
    os.mkfifo(plane)
    with pytest.raises(ModelError, match=r"plane\.onnx: not a file"):
        Bundle.open(copy).read(PLANE)
    for name in ("/dev/zero", "../model/plane.onnx", "manifest.json"):
        with pytest.raises(ModelError, match="lists no such file"):
            Bundle.open(copy).read(name)


@pytest.mark.parametrize("file", ["/etc/hostname", "../../model.pt", "sub/model.pt", "..", ""])
def test_a_checkpoint_is_in_the_bundle_or_beside_it(copy, file):
    edit(copy, checkpoint={"file": file, "sha256": ""})
    with pytest.raises(ModelError, match="not followed"):
        Bundle.open(copy).checkpoint()


def test_another_checkpoint_is_refused(copy):
    (copy / "model.pt").write_bytes(b"another")
    edit(copy, checkpoint={"file": "model.pt", "sha256": "0" * 64})
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Bundle.open(copy).checkpoint()


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_weights_in_other_files_are_not_followed(tmp_path, where):
    (tmp_path / "weights").write_bytes(np.ones(4, np.float32).tobytes())
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "weights")
    tensor.ClearField("raw_data")
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [4])
    constant = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
    inner = onnx.helper.make_graph([constant], "inner", [], [onnx.helper.make_tensor_value_info("w", 1, [4])])
    yes = onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    nodes = {
        "initializer": [onnx.helper.make_node("Identity", ["w"], ["out"])],
        "constant": [constant, onnx.helper.make_node("Identity", ["w"], ["out"])],
        "branch": [onnx.helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)],
    }[where]
    graph = onnx.helper.make_graph(nodes, "g", [], [out], [tensor] if where == "initializer" else [yes])
    content = onnx.helper.make_model(graph).SerializeToString()
    assert has_external_data(content)
    write_bundle(tmp_path / "b", MANIFEST, {**CONTENTS, PLANE: content})
    with pytest.raises(ModelError, match=r"plane\.onnx: has weights in other files"):
        Prior(Bundle.open(tmp_path / "b"), GRIDS[PLANE])


def of_another_network(changes):
    return identity({name: changes.get(name, shape) for name, shape in INPUTS.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noisy": ["f", 1, 7, 9]}, "fails to run the network"),
        ({"basis": [1, "rows", "columns"]}, "fails to run the network"),
        ({"precision": ["f", 2]}, "fails to run the network"),
    ],
)
def test_models_that_are_not_for_us(tmp_path, changes, message):
    """Complete models of another network, listed with the right hash."""
    write_bundle(tmp_path / "b", MANIFEST, {PLANE: of_another_network(changes), VOLUME: b"two"})
    with pytest.raises(ModelError, match=message):
        Prior(Bundle.open(tmp_path / "b"), (9, 8), threads=1).of_frames(2)(np.zeros((2, 72), np.float32), 1.0)


@pytest.mark.parametrize("name", [*INPUTS])
def test_models_with_other_inputs(tmp_path, name):
    inputs = {"other" if one == name else one: shape for one, shape in INPUTS.items()}
    write_bundle(tmp_path / "b", MANIFEST, {PLANE: identity(inputs), VOLUME: b"two"})
    with pytest.raises(ModelError, match=f"the network has no {name} of"):
        Prior(Bundle.open(tmp_path / "b"), (9, 8), threads=1).of_frames(2)


def test_models_that_only_speak_of_a_location_are_searched_in_vain():
    for name in (PLANE, VOLUME):
        content = Bundle.open().read(name)
        assert not has_external_data(content)
        named = onnx.load_from_string(content)
        named.graph.name = named.graph.doc_string = "location"
        assert not has_external_data(named.SerializeToString())


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
        write_bundle(tmp_path / "b", {**MANIFEST, "sigma_range": []}, CONTENTS)
    with pytest.raises(InputError, match="no such folder"):
        write_bundle(tmp_path / "nowhere" / "b", MANIFEST, CONTENTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
