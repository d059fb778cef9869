"""Export of shared parts: traced once, and in the graph as if they had not been shared."""

import copy

import numpy as np
import onnxruntime
import torch
from torch import nn

from mpi_fast.export.onnx import to_onnx
from mpi_fast.export.shared import Shared


class Part(nn.Module):
    traced = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x, scales):
        Part.traced += torch.compiler.is_exporting()
        return torch.tanh(self.layer(x) * scales[0] * scales[1])


class Around(nn.Module):
    """A part that calls a part."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.layer = inner, nn.Linear(5, 5)

    def forward(self, x, bias):
        return self.layer(self.inner(x, [bias, bias + 1.0]))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        axes = {"x": {0: "count"}}
        self.inner = Shared("inner", Part(), axes)
        self.outer = Shared("outer", Around(self.inner), axes)
        self.register_buffer("biases", torch.tensor([0.5, 0.7]))

    def forward(self, x):
        for bias in self.biases:
            x = self.outer(x, bias)
        return self.inner(x, [self.biases[0], self.biases[1]])


def run(graph, x):
    session = onnxruntime.InferenceSession(graph.content)
    return session.run(None, {"x": x})[0]


def test_a_shared_part_is_traced_once_and_leaves_no_trace():
    torch.manual_seed(0)
    module = Whole()
    plain = copy.deepcopy(module)
    plain.outer.module.inner = plain.inner = plain.inner.module
    plain.outer = plain.outer.module
    axes = {"x": {0: "count"}}
    examples = {"x": torch.ones(2, 5)}

    once = to_onnx(module, examples, ["out"], axes)
    first, Part.traced = Part.traced, 0
    each = to_onnx(plain, examples, ["out"], axes)
    assert Part.traced == 3 * first > 0

    assert not once.model.functions
    assert {node.domain for node in once.model.graph.node} == {""}
    assert [opset.domain for opset in once.model.opset_import] == [""]
    operators = [sorted(node.op_type for node in graph.model.graph.node) for graph in (once, each)]
    assert operators[0] == operators[1]
    assert once.nodes_before >= len(operators[0])
    weights = [[tuple(tensor.dims) for tensor in graph.model.graph.initializer] for graph in (once, each)]
    assert weights[0].count((5, 5)) == weights[1].count((5, 5)) == 2
    for count in (1, 7):
        x = np.random.default_rng(count).standard_normal((count, 5)).astype(np.float32)
        expected = module(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(run(once, x), expected, atol=1e-6)
        np.testing.assert_allclose(run(each, x), expected, atol=1e-6)
