"""Interrupted reconstructions keep finished images, and give the results of an uninterrupted run."""

import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast import progress
from mpi_fast.cli import app
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.flags import Flag
from mpi_fast.journal import Journal
from mpi_fast.mdf import read_reconstruction, validate
from mpi_fast.unfinished import Unfinished

FRAMES = 300
DATA = "/measurement/data"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    run("simulate", folder, "--frames", FRAMES, "--background-frames", 20, "--grid", "8x8", "--spectra")
    run("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5", "--max-rows", 100)
    reconstruct(folder, folder / "whole.mdf")
    return folder


def reconstruct(made, output, *options, measurement="measurement.mdf", code=0):
    command = "reconstruct", made / measurement, "-c", made / "scanner.h5", "-o", output, "--threads", 1
    return run(*command, *options, code=code)


def images_of(path):
    """All stored data of the images, as bytes."""
    with h5py.File(path) as h5:
        names = [name for name in h5["reconstruction"] if name != "_provenance"]
        return {name: h5["reconstruction"][name][()].tobytes() for name in names if name != "order"}


def killed(work, when):
    """Run in a child that is killed as soon as ``when`` is true."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 120
    while not when() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("share", [0.0, 0.37, 0.92])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(made, tmp_path, share):
    output, part = tmp_path / "images.mdf", tmp_path / "images.mdf.part"
    output.write_bytes(b"an older result")
    whole = 2 * 4 * 64 * FRAMES

    def far_enough():
        return part.exists() and part.stat().st_size > share * whole

    assert killed(lambda: reconstruct(made, output), far_enough) == -signal.SIGKILL
    assert output.read_bytes() == b"an older result"
    assert part.exists()
    reconstruct(made, output, "--resume")
    assert images_of(output) == images_of(made / "whole.mdf")
    assert validate(output) == []
    assert list(tmp_path.iterdir()) == [output]


def test_a_full_disk_keeps_what_is_done(made, tmp_path, monkeypatch):
    output, taken = tmp_path / "images.mdf", 0
    real = Journal._write

    def write(journal, content):
        nonlocal taken
        taken += len(content)
        if taken > 100_000:
            raise OSError(28, "No space left on device")
        real(journal, content)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", write)
        said = reconstruct(made, output, code=2).stderr
    assert "images.mdf.part: 128 frames are kept; --resume goes on from there" in said
    assert "No space left on device" in said
    assert [path.name for path in tmp_path.iterdir()] == ["images.mdf.part"]
    reconstruct(made, output, "--resume")
    assert images_of(output) == images_of(made / "whole.mdf")


def test_a_full_disk_while_the_output_is_written_loses_nothing(made, tmp_path, monkeypatch):
    output = tmp_path / "images.mdf"
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr("mpi_fast.atomic._publish", full)
        said = reconstruct(made, output, code=2).stderr
    assert f"{output}: cannot be written: No space left on device" in said
    assert f"{FRAMES} frames are kept" in said
    with monkeypatch.context() as patch:
        patch.setattr("mpi_fast.reconstructor.Reconstructor.__call__", full)  # no image is computed twice
        reconstruct(made, output, "--resume")
    assert images_of(output) == images_of(made / "whole.mdf")


def test_ctrl_c_keeps_what_is_done_and_without_resume_it_is_dropped(made, tmp_path, monkeypatch):
    output, real = tmp_path / "images.mdf", Unfinished.run
    with monkeypatch.context() as patch:

        def interrupted(*arguments):
            for number, chunk in enumerate(real(*arguments)):
                if number == 2:
                    raise KeyboardInterrupt
                yield chunk

        patch.setattr(Unfinished, "run", interrupted)
        assert "192 frames are kept" in reconstruct(made, output, code=130).stderr
    changed = reconstruct(made, output, "--resume", "--no-background", code=2).stderr
    assert "was begun with background = True, now it is False: expected the same as then" in changed
    assert "what an interrupted run left is dropped" in reconstruct(made, output).stderr
    assert images_of(output) == images_of(made / "whole.mdf")


@pytest.fixture(scope="module")
def with_nan(made):
    """The same measurement with one NaN in frame 280."""
    path = made / "nan.mdf"
    path.write_bytes((made / "measurement.mdf").read_bytes())
    with h5py.File(path, "r+") as h5:
        h5[DATA][280, 0, :, :] = np.nan
    return path.name


def test_one_bad_frame_costs_no_other(made, with_nan, tmp_path):
    whole = read_reconstruction(made / "whole.mdf")
    marked, skipped = tmp_path / "marked.mdf", tmp_path / "skipped.mdf"
    reconstruct(made, marked, measurement=with_nan)
    images, others = read_reconstruction(marked), np.arange(FRAMES) != 280
    assert np.isnan(images[280]).all()
    assert np.flatnonzero(read_reconstruction(marked, "_flags") & Flag.BAD).tolist() == [280]
    assert np.array_equal(images[others], whole[others])
    reconstruct(made, skipped, "--on-bad-frame", "skip", measurement=with_nan)
    assert np.array_equal(read_reconstruction(skipped), whole[others])
    assert np.array_equal(read_reconstruction(skipped, "_frame"), np.flatnonzero(others))


def test_nothing_is_kept_of_frames_that_are_all_skipped(made, with_nan, tmp_path):
    bad = "--frames", "280:281", "--on-bad-frame", "skip"
    said = reconstruct(made, tmp_path / "images.npz", *bad, measurement=with_nan, code=2).stderr
    assert "images.npz: there are no images to write" in said
    assert "resume" not in said
    assert not list(tmp_path.iterdir())


def test_stopping_at_a_bad_frame_keeps_those_before_it(made, with_nan, tmp_path):
    output = tmp_path / "images.mdf"
    said = reconstruct(made, output, "--on-bad-frame", "stop", measurement=with_nan, code=2).stderr
    assert "NaN or Inf in frame 280" in said
    assert "256 frames are kept" in said
    reconstruct(made, output, "--resume", "--on-bad-frame", "mark", measurement=with_nan)
    assert len(read_reconstruction(output)) == FRAMES
    assert "expected skip, mark or stop" in reconstruct(made, output, "--on-bad-frame", "flag", code=2).stderr


def test_averages_resume_too_and_what_is_left_over_is_said(made, tmp_path, monkeypatch):
    options = "--average", "2", "--frames", "1:300"
    said = reconstruct(made, tmp_path / "whole.mdf", *options).stderr
    assert "the last 1 frame is fewer than the 2 averaged into one: left out" in said
    with monkeypatch.context() as patch:
        real = Unfinished.run

        def interrupted(*arguments):
            yield next(real(*arguments))
            raise KeyboardInterrupt

        patch.setattr(Unfinished, "run", interrupted)
        reconstruct(made, tmp_path / "images.mdf", *options, code=130)
    reconstruct(made, tmp_path / "images.mdf", *options, "--resume")
    assert images_of(tmp_path / "images.mdf") == images_of(tmp_path / "whole.mdf")
    assert len(read_reconstruction(tmp_path / "whole.mdf")) == 149


def test_arrays_resume(made, tmp_path, monkeypatch):
    with h5py.File(made / "measurement.mdf") as h5:
        np.save(tmp_path / "frames.npy", h5[DATA][:150, 0])
    (tmp_path / "scanner.h5").write_bytes((made / "scanner.h5").read_bytes())
    reconstruct(tmp_path, tmp_path / "whole.npz", measurement="frames.npy")
    real = Unfinished.run

    def interrupted(*arguments):
        yield next(real(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "run", interrupted)
        reconstruct(tmp_path, tmp_path / "images.npz", measurement="frames.npy", code=130)
    reconstruct(tmp_path, tmp_path / "images.npz", "--resume", measurement="frames.npy")
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "images.npz") as images:
        for name in ("image", "std", "frame", "misfit", "flags"):
            assert whole[name].tobytes() == images[name].tobytes()


def test_progress_is_said_where_there_is_no_terminal(made, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    said = reconstruct(made, tmp_path / "images.mdf").stderr
    assert "reconstructing: 128 of 300 frames, 43 %, 0:00:0" in said


# -- the journal -----------------------------------------------------------------------------------------------------


def test_every_cut_leaves_the_whole_records(tmp_path):
    path, origin = tmp_path / "a.part", {"seed": 1}
    journal = Journal(path, origin, resume=False)
    ends = [path.stat().st_size]
    for record in (b"one", b"", b"three"):
        journal.append(record)
        ends.append(path.stat().st_size)
    journal.close()
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        again = Journal(path, origin, resume=True)
        expected = [b"one", b"", b"three"][: sum(end <= length for end in ends[1:])]
        assert list(again) == expected
        again.append(b"new")
        assert list(again) == [*expected, b"new"]
        again.close()


def test_damaged_records_are_not_believed(tmp_path):
    path = tmp_path / "a.part"
    journal = Journal(path, {}, resume=False)
    journal.append(b"one")
    end = path.stat().st_size
    journal.append(b"two")
    journal.close()
    content = bytearray(path.read_bytes())
    content[end + 12] ^= 1
    path.write_bytes(content)
    again = Journal(path, {}, resume=True)
    assert list(again) == [b"one"]
    again.close()


def test_journals_of_others_are_refused(tmp_path):
    path = tmp_path / "a.part"
    path.write_text("a text of somebody")
    with pytest.raises(InputError, match="is not a journal of mpi-fast"):
        Journal(path, {}, resume=False)
    assert path.read_text() == "a text of somebody"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="it is a pipe or a device"):
        Journal(path, {}, resume=True)
    path.unlink()
    journal = Journal(path, {"seed": 1}, resume=False)
    with pytest.raises(InputError, match="another process is writing it"):
        Journal(Path(path), {"seed": 1}, resume=True)
    journal.close()
    with pytest.raises(MismatchError, match="was begun with seed = 1, now it is 2"):
        Journal(path, {"seed": 2}, resume=True)
