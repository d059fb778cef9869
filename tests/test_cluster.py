"""Actors of a Ray cluster give the images of one process, even if an actor is killed, and pass errors on unchanged."""

import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from test_workers import images_of, run, same

from mpi_fast.cluster import Cluster
from mpi_fast.errors import DeviceError, InputError, ModelError
from mpi_fast.experiment import measure_matrix
from mpi_fast.pipelines import Frames
from mpi_fast.pipelines.choose import choose
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner


@pytest.fixture(scope="module")
def ray():
    """Ray, joined to a small cluster on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    options = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    ray.init("local", log_to_driver=False, logging_level="CRITICAL", **options)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors need not import pytest
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def reconstruct():
    calibration = measure_matrix(Scanner(grid=(8, 8)), 20.0, np.random.default_rng(0)).calibrate()
    return Reconstructor(calibration, threads=1)


def noted(folder, *arguments, **options):
    """A pipeline that records its process."""
    (folder / str(os.getpid())).touch()
    return choose(*arguments, **options)


def test_a_killed_actor_costs_nothing(ray, reconstruct, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (8, 16, 64)) * (rng.uniform(0, 1, (8, 16, 64)) > 0.8)
    chunks = list((images @ reconstruct.calibration.matrix.T).astype(np.complex64))
    chunks[3][5] = np.nan
    expected = list(reconstruct.stream(chunks))
    made = reconstruct._choose
    monkeypatch.setattr(reconstruct, "_choose", partial(noted, tmp_path, *made.args, **made.keywords))
    stream = reconstruct.stream(chunks, cluster="auto")
    found = [next(stream)]
    killed = list(tmp_path.iterdir())
    for one in killed:
        os.kill(int(one.name), signal.SIGKILL)
    found += stream
    assert len(list(tmp_path.iterdir())) > len(killed) > 0
    assert len(found) == len(expected)
    assert all(map(same, found, expected))


class Counts:
    """Makes images that contain the number of their chunk; raises an error for the third chunk."""

    name = "counts"

    def __call__(self, rows):
        if rows[0, 0].real == 2:
            raise ModelError("the model broke")
        return Frames(*np.zeros((5, 1), np.float32) + rows[0, 0].real)


def counts(*, device):
    assert device == "cpu"
    return Counts(), "requested"


def numbered(asked):
    for number in range(100):
        asked.append(number)
        yield np.full((1, 1), number, np.complex64)


def test_errors_come_as_they_are_after_the_images_before_them_and_few_chunks_are_under_way(ray):
    asked = []
    with Cluster(counts, threads=2) as cluster:
        stream = cluster.map(numbered(asked))
        assert [next(stream).image[0] for _ in range(2)] == [0, 1]
        with pytest.raises(ModelError, match=r"^the model broke$") as raised:
            next(stream)
    assert type(raised.value) is ModelError
    assert len(asked) == 4


def dying(*, device):
    os._exit(9)


def test_a_chunk_that_kills_every_actor_is_an_error(ray, monkeypatch):
    monkeypatch.setattr("mpi_fast.ordered.LOSSES", 1)
    with Cluster(dying, threads=2) as cluster, pytest.raises(DeviceError, match="killed one after the other"):
        list(cluster.map([np.zeros((1, 1), np.complex64)]))


def test_what_no_node_has_is_refused(ray):
    with pytest.raises(InputError, match="no node of the cluster has more than 2 cores"), Cluster(counts, threads=3):
        pass
    with pytest.raises(DeviceError, match="the cluster has no GPU"), Cluster(counts, device="cuda"):
        pass
    with pytest.raises(InputError, match="a cluster deals out its GPUs itself"):
        Cluster(counts, device="cuda:1")


def test_a_cluster_that_is_not_there_is_one_line():
    """Runs in a separate process that has not joined a cluster."""
    pytest.importorskip("ray", reason="Ray is not installed")
    program = "from mpi_fast.cluster import Cluster\nwith Cluster(print, '127.0.0.1:1'): pass"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "DeviceError: cluster '127.0.0.1:1': cannot be joined: " in ran.stderr.splitlines()[-1]
    assert ran.stdout == ""


# -- the command line ------------------------------------------------------------------------------------------------


def test_a_cluster_writes_what_one_process_does(ray, tmp_path):
    run("simulate", tmp_path, "--frames", 100, "--background-frames", 10, "--grid", "8x8", "--spectra")
    run("calibrate", tmp_path / "system-matrix.mdf", "-o", tmp_path / "scanner.h5", "--max-rows", 100)
    command = "reconstruct", tmp_path / "measurement.mdf", "-c", tmp_path / "scanner.h5", "--threads", 2
    alone = run(*command, "-o", tmp_path / "alone.mdf").stdout.splitlines()
    shown = run(*command, "-o", tmp_path / "cluster.mdf", "--cluster", "auto").stdout.splitlines()
    assert images_of(tmp_path / "cluster.mdf") == images_of(tmp_path / "alone.mdf")
    assert len(shown) == len(alone)  # without messages of Ray


def test_a_cluster_without_ray_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = "reconstruct", tmp_path / "x.mdf", "-c", tmp_path / "x.h5", "--cluster", "auto"
    (tmp_path / "x.mdf").touch()
    assert run(*command, code=2).stderr == "error: a cluster needs Ray: pip install 'mpi-fast[cluster]'\n"


def test_workers_and_a_cluster_exclude_each_other(reconstruct, tmp_path):
    (tmp_path / "x.mdf").touch()
    command = "reconstruct", tmp_path / "x.mdf", "-c", tmp_path / "x.h5", "--cluster", "auto", "--workers", 2
    assert run(*command, code=2).stderr == "error: --workers, --cluster: expected one of the two\n"
    with pytest.raises(InputError, match="workers and cluster"):
        next(reconstruct.stream([], workers=2, cluster="auto"))
