"""Predictions: launches of the loop with their least times, and measured times beside them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import roofline
from network_cases import parameters, random_network
from roofline import GPUS, LAUNCH

from mpi_fast.kernels.launch import Kernel
from mpi_fast.kernels.weights import Weights


@pytest.fixture(scope="module")
def scanner():
    return roofline.scanner((19, 19), 150, 500)


@pytest.fixture(scope="module")
def network():
    return random_network(28, coarse_every=3)


def test_every_launch_of_a_frame_is_counted_and_takes_its_least_time(scanner, network):
    weights = Weights.upload(parameters(network), SimpleNamespace(upload=np.asarray))
    for gpu in GPUS:
        found = roofline.predict(gpu, scanner, weights, 1, evaluations=2)
        counts = {name: count for name, (count, _) in found.items()}
        once = dict.fromkeys(("reduce", "prepare", "refine"), 1)
        assert counts == {"copy": 5, **once, "plan": 2, "project": 56, "fine": 56, "coarse": 20, "image": 2}
        assert all(seconds >= count * LAUNCH for count, seconds in found.values())
        many = roofline.predict(gpu, scanner, weights, 512)
        assert sum(seconds for _, seconds in many.values()) < 512 * sum(seconds for _, seconds in found.values())


def test_a_volume_takes_less_than_its_scanners_period_if_the_prediction_holds(network):
    """The lower bound is reading V from an H100's memory, twice for each block of the network."""
    volume, evaluations = roofline.scanner((19, 19, 19), 1000, 3000), 2
    weights = Weights.upload(parameters(network), SimpleNamespace(upload=np.asarray))
    for gpu in GPUS:
        found = roofline.predict(gpu, volume, weights, 1, evaluations)
        counts = {name: count for name, (count, _) in found.items()}
        once = dict.fromkeys(("reduce", "prepare", "white", "refine"), 1)
        twice = dict.fromkeys(("plan", "variances", "image", "tails"), 2)
        each = dict.fromkeys(("current", "residual", "changes", "fine"), 56)
        assert counts == {"copy": 5, **once, **twice, **each, "coarse": 20}
        total = sum(seconds for _, seconds in found.values())
        assert total < 1e-3 * roofline.PERIOD_MS / 2
        basis = 4 * volume.num_voxels * volume.rank
        if gpu.name == "H100 SXM":
            assert 1.2 * 2 * 56 * basis / gpu.memory < total < evaluations * 2e-3
        large = roofline.scanner((37, 37, 37), 3000, 40)
        kernel = Kernel("changes", (("FRAMES", "1"),))
        assert roofline.streamed(kernel, 2, large, gpu) == 2 * 4 * large.num_voxels * large.rank


def test_pytorch_launches_an_operation_at_a_time(scanner):
    network = random_network(1)
    convolutions = 8
    assert roofline.launches_of_torch(network, scanner) > 3 * convolutions


def test_what_make_gpu_left_is_read(tmp_path):
    file = tmp_path / "gpu-some-card.json"
    one = {"gpu": "Some Card", "grid": "19 x 19", "stage": "reduce", "frames": 8, "seconds": 2e-6}
    rows = [one, {"name": "latency"}]
    file.write_text(json.dumps({"machine": {}, "rows": rows}))
    assert roofline.measured([file]) == {("Some Card", "19 x 19", "reduce", 8): 2e-6}
