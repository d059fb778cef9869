"""The rewriting of the networks' last convolutions for CPUs."""

import torch

from mpi_fast.export.artefacts import example
from mpi_fast.export.depthwise_heads import depthwise_heads
from mpi_fast.export.frame import Frame
from mpi_fast.training.network import Corrector, PosteriorConfig, PosteriorNetwork


def test_the_images_stay_the_same_and_no_convolution_has_a_single_output_of_all_channels():
    torch.manual_seed(0)
    network = PosteriorNetwork(PosteriorConfig(blocks=3, width=8, inner=8, embedding=16, coarse_every=2)).eval()
    for module in network.modules():
        if isinstance(module, Corrector):  # zero at the start of training
            torch.nn.init.normal_(module.head.weight)
    original = Frame(network)
    changed = depthwise_heads(original)
    assert [type(module.head) for module in network.correctors] == [torch.nn.Conv2d] * len(network.correctors)
    dense = [module for module in changed.modules() if isinstance(module, torch.nn.Conv2d) and module.groups == 1]
    assert all(module.out_channels > 1 or module.kernel_size == (1, 1) for module in dense)
    inputs = example((1, 8, 13), rank=40, frames=3, seed=0).values()
    with torch.inference_mode():
        for ours, theirs in zip(changed(*inputs), original(*inputs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
