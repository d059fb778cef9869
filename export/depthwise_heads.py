"""The last convolution of each block, rewritten for CPUs: one filter per channel, and then the sum of all channels.

ONNX Runtime computes outputs of convolutions in vectors of 8 or 16 channels. A convolution with a single output fills
one of them and takes as long as one with 16 outputs, a tenth of the whole evaluation. The two equal convolutions take a
third of this time. Results change only by rounding. GPUs have no such loss, so graphs in float16 stay as they are.
"""

import copy

from torch import nn

from mpi_fast.export.frame import Frame
from mpi_fast.training.network import Corrector


def depthwise_heads(frame: Frame) -> Frame:
    """A copy of a frame's graph in which each convolution with a single output is split into two."""
    changed = copy.deepcopy(frame)
    for module in changed.modules():
        if isinstance(module, Corrector) and module.head.out_channels == 1:
            module.head = _split(module.head)  # type: ignore[assignment]
    return changed


def _split(head: nn.Conv2d) -> nn.Sequential:
    channels = head.in_channels
    each = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    each.weight.data.copy_(head.weight.data.transpose(0, 1))  # (1, channels, 3, 3) -> (channels, 1, 3, 3)
    total = nn.Conv2d(channels, 1, 1)
    total.weight.data.fill_(1.0)
    assert head.bias is not None
    total.bias = head.bias
    return nn.Sequential(each, total)
