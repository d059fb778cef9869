"""Folders appear complete or not at all, and the end of a process at any moment loses neither old nor new ones."""

import os
import signal
from pathlib import Path

import pytest

from mpi_fast import atomic_folder as module
from mpi_fast import leftovers
from mpi_fast.atomic_folder import atomic_folder
from mpi_fast.errors import InputError


def is_ours(path):
    return (path / "content").is_file()


def write(path, content, **options):
    with atomic_folder(path, is_ours, "one of ours", **options) as temporary:
        temporary.mkdir()
        (temporary / "content").write_text(content)


def contents(folder):
    """All files in a folder, also the hidden ones."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_created_and_replaced(tmp_path):
    for content in ("old", "new"):
        write(tmp_path / "a", content)
        assert contents(tmp_path) == {"a/content": content}
    assert names(tmp_path) == ["a"]


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(InputError, match=f"{name}: exists and is not one of ours; not replaced"):
            write(tmp_path / name, "new")
    with pytest.raises(InputError, match="no such folder"):
        write(tmp_path / "no" / "a", "new")
    assert names(tmp_path) == ["file", "folder"]


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "a", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "disk") == {"a/content": "new"}
    assert names(tmp_path) == ["disk", "link"]


def test_hidden_names_can_lie_outside(tmp_path):
    (tmp_path / "repository").mkdir()
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "repository" / "a", is_ours, "one of ours", outside=True) as temporary:
            assert temporary.parent == tmp_path
            temporary.mkdir()
            (temporary / "content").write_text(content)
    assert contents(tmp_path) == {"repository/a/content": "new"}
    assert names(tmp_path) == ["repository"]


def failing(monkeypatch, turn, fail):
    """Let a renaming fail: the first or the second."""
    real, turns = Path.rename, []

    def rename(path, target):
        turns.append(target)
        if len(turns) == turn:
            fail()
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("turn", [1, 2])
def test_a_renaming_that_fails_leaves_the_old_folder(tmp_path, monkeypatch, turn, error):
    write(tmp_path / "a", "old")

    def fail():
        raise error("no")

    failing(monkeypatch, turn, fail)
    with pytest.raises(error):
        write(tmp_path / "a", "new")
    assert contents(tmp_path) == {"a/content": "old"}
    assert names(tmp_path) == ["a"]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(monkeypatch, turn, path, **options):
    """Write in a child that is killed at a renaming."""
    child = os.fork()
    if not child:
        failing(monkeypatch, turn, die)
        write(path, "new", **options)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs processes as on Linux")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(("turn", "left"), [(1, "old"), (2, "old"), (3, "new")])
def test_a_kill_at_any_renaming_loses_nothing(tmp_path, monkeypatch, turn, left, outside):
    path = tmp_path / "repository" / "a"
    path.parent.mkdir()
    write(path, "old", outside=outside)
    killed(monkeypatch, turn, path, outside=outside)
    leftovers.sweep(tmp_path)
    leftovers.sweep(path.parent)
    assert left in contents(tmp_path).values()
    with pytest.raises(ZeroDivisionError), atomic_folder(path, is_ours, "one of ours", outside=outside):
        1 / 0  # noqa: B018 (it writes nothing, but restores)
    assert contents(tmp_path)["repository/a/content"] == left
    write(path, "next", outside=outside)
    assert contents(tmp_path) == {"repository/a/content": "next"}


def test_files_are_on_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    done, real = [], Path.rename
    monkeypatch.setattr(module, "sync", lambda path: done.append(f"sync {path.name}"))
    monkeypatch.setattr(Path, "rename", lambda *paths: (done.append("rename"), real(*paths))[1])
    write(tmp_path / "a", "new")
    assert done[0] == "sync content"
    assert done[1].startswith("sync .mpi-fast-")
    assert done[2:] == ["rename", f"sync {tmp_path.name}"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs processes as on Linux")
def test_one_obstacle_does_not_stop_the_sweep(tmp_path, monkeypatch):
    names = [f"{leftovers.hidden_name('.x')}" for _ in range(4)]
    monkeypatch.setattr(leftovers, "_alive", lambda *_: False)
    for name in names:
        (tmp_path / name).touch()
    real, first = leftovers._remove_unlocked, []

    def remove(path):
        if not first:
            first.append(path)
            raise PermissionError
        real(path)

    monkeypatch.setattr(leftovers, "_remove_unlocked", remove)
    leftovers.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == first


def test_nothing_is_swept_where_processes_cannot_be_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "_alive", lambda *_: False)
    monkeypatch.setattr(leftovers, "fcntl", None)
    (tmp_path / leftovers.hidden_name(".x")).touch()
    leftovers.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
