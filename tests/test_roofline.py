"""Predictions: the launches of the loop that is built, each with its least time, and what was measured beside them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import roofline
from network_cases import parameters, random_network
from roofline import GPUS, LAUNCH

from mpi_fast.kernels.weights import Weights


@pytest.fixture(scope="module")
def scanner():
    return roofline.scanner(19, 150, 500)


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


def test_pytorch_launches_an_operation_at_a_time(scanner):
    network = random_network(1)
    convolutions = 8
    assert roofline.launches_of_torch(network, scanner) > 3 * convolutions


def test_what_make_gpu_left_is_read(tmp_path):
    file = tmp_path / "gpu-some-card.json"
    rows = [{"gpu": "Some Card", "stage": "reduce", "frames": 8, "seconds": 2e-6}, {"name": "latency"}]
    file.write_text(json.dumps({"machine": {}, "rows": rows}))
    assert roofline.measured([file]) == {("Some Card", "reduce", 8): 2e-6}
