"""Untrusted checkpoints: every flipped bit is detected, and no more is allocated than the file contains."""

import io
import os
import resource
import zipfile

import pytest
import torch

from mpi_fast.errors import ModelError
from mpi_fast.training.checkpoint import FORMAT, load_trained
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork
from mpi_fast.training.recipes import RECIPES

TINY = PosteriorConfig(blocks=1, width=4, inner=4, embedding=4)


@pytest.fixture(scope="module")
def content():
    state = PosteriorNetwork(TINY).state_dict()
    return {
        "format": FORMAT,
        "method": "posterior",
        "grid": [5, 4],
        "network": TINY.to_dict(),
        "sigma_range": [0.02, 10.0],
        "state": state,
        "provenance": {},
    }


@pytest.fixture
def path(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def little_memory():
    """Limits memory to 1 GB more than now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 10**9, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def rewritten(path, change, method=zipfile.ZIP_STORED):
    """Write the archive with changed members and the right CRCs."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", method) as new:
        for name, data in members.items():
            new.writestr(name, data)


def test_every_flipped_bit_is_seen_or_harmless(path, content):
    raw = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for place in torch.randint(len(raw), (150,), generator=generator).tolist():
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        try:
            found = load_trained(path)
        except ModelError:
            refused += 1
            continue
        assert (found.grid, found.sigma_range, found.method) == ((5, 4), (0.02, 10.0), "posterior")
        for name, value in found.network.state_dict().items():
            torch.testing.assert_close(value, content["state"][name], rtol=0, atol=0)
    assert refused > 40  # torch pads its members


def test_a_flipped_bit_is_named(path):
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        inside = next(one for one in archive.infolist() if one.filename.endswith("/data/0"))
    place = raw.rindex(archive_bytes(path, inside.filename))
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"model\.pt: .*/data/0: its CRC is wrong"):
        load_trained(path)


def archive_bytes(path, name):
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


@pytest.mark.parametrize("method", [*RECIPES])
def test_every_kind_of_network_is_read(tmp_path, content, method):
    recipe = RECIPES[method]
    config = recipe.config()
    state = recipe.build(config, (5, 4)).state_dict()
    whole = {**content, "method": method, "network": config.to_dict(), "state": state}
    torch.save(whole, tmp_path / "model.pt")
    assert load_trained(tmp_path / "model.pt").method == method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 10**9}, r"network: blocks 1000000000: expected a whole number from 1 to 64"),
        ({"width": 10**9}, r"width 1000000000: .* from 1 to 1024"),
        ({"blocks": 64}, r"the network has"),
        ({"width": 1024, "inner": 1024}, r"the network has"),
        ({"width": 4.0}, r"width 4\.0"),
        ({"width": True}, r"width True"),
        ({"width": "4"}, r"width '4'"),
        ({"depth": 3}, r"depth"),
    ],
)
def test_configurations_that_are_not_those_of_the_tensors(path, content, little_memory, settings, message):
    torch.save({**content, "network": {**TINY.to_dict(), **settings}}, path)
    with pytest.raises(ModelError, match=rf"model\.pt: .*{message}"):
        load_trained(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(10**9), "which the file does not hold"),
        (torch.zeros(4, 3).T, "expected contiguous"),
        (torch.zeros(8)[:4], "which the file does not hold"),
        (torch.zeros(4, dtype=torch.float64), "expected contiguous float32"),
        (torch.zeros(4, dtype=torch.complex64), "expected contiguous float32"),
        (torch.zeros(4).to_sparse(), "expected a name and a tensor"),
        (3.0, "expected a name and a tensor"),
        (torch.zeros(5), r"\(5,\), the network has \(4,\)"),
    ],
)
def test_tensors_that_are_not_what_they_should_be(path, content, little_memory, tensor, message):
    torch.save({**content, "state": {**content["state"], "correctors.0.inject.bias": tensor}}, path)
    with pytest.raises(ModelError, match=rf"model\.pt: state: correctors\.0\.inject\.bias: .*{message}"):
        load_trained(path)


def test_tensors_that_are_missing_or_too_many(path, content):
    state = dict(content["state"])
    torch.save({**content, "state": {**state, "other": torch.zeros(5)}}, path)
    with pytest.raises(ModelError, match=r"model\.pt: state: other: \(5,\), the network has none"):
        load_trained(path)
    del state["tails.bias"]
    torch.save({**content, "state": state}, path)
    with pytest.raises(ModelError, match=r"model\.pt: state: tails\.bias: is missing, the network has \(2,\)"):
        load_trained(path)


def test_a_tensor_of_more_numbers_than_the_file_has(path):
    """The sizes in the pickle are increased, so torch would read beyond the end."""

    def change(members):
        pickle = next(name for name in members if name.endswith("data.pkl"))
        assert members[pickle].count(b"K\x04K\x04K\x03K\x03") > 0
        members[pickle] = members[pickle].replace(b"K\x04K\x04K\x03K\x03", b"K\xffK\xffK\x03K\x03")

    rewritten(path, change)
    with pytest.raises(ModelError, match=r"model\.pt"):
        load_trained(path)


def test_storages_cut_short_within_a_whole_archive(path):
    def change(members):
        name = next(name for name in members if name.endswith("/data/0"))
        members[name] = members[name][:4]

    rewritten(path, change)
    with pytest.raises(ModelError, match=r"model\.pt"):
        load_trained(path)


@pytest.mark.parametrize("kind", ["compressed", "pickle", "twice", "other"])
def test_archives_that_unfold(path, little_memory, kind):
    if kind == "compressed":
        rewritten(path, lambda members: members.update(bomb=bytes(10**8)), zipfile.ZIP_DEFLATED)
        message = "declares more than it holds"
    elif kind == "pickle":
        name = "model/data.pkl"
        rewritten(path, lambda members: members.update({name: b"]" * 6_800_000 + b"."}))
        message = "6800001 bytes"
    elif kind == "twice":
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr("model/data.pkl", b"")
        message = "no checkpoint of torch's"
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("thesis.txt", b"x")
        message = "no checkpoint of torch's"
    with pytest.raises(ModelError, match=message):
        load_trained(path)


def test_what_is_no_file_or_too_large(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ModelError, match=r"pipe\.pt: not a file"):
        load_trained(tmp_path / "pipe.pt")
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"large\.pt: 1099511627776 bytes"):
        load_trained(tmp_path / "large.pt")
    torch.save([1], old := io.BytesIO(), _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(old.getvalue())
    with pytest.raises(ModelError, match=r"old\.pt: not a checkpoint"):
        load_trained(tmp_path / "old.pt")
