"""Modules as graphs of standard operators, compared with float64."""

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from mpi_fast.export.torch_to_onnx import to_onnx


class Asinh(nn.Module):
    """A module of this single function."""

    def forward(self, x: Tensor) -> Tensor:
        """The inverse hyperbolic sine."""
        return torch.asinh(x)


def test_asinh_is_exported_as_vectorised_operators_that_are_exact_at_all_sizes():
    graph = to_onnx(Asinh(), {"x": torch.ones(3)}, ["y"], {"x": {0: "frames"}})
    assert "Asinh" not in {node.op_type for node in graph.model.graph.node}
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    positive = np.geomspace(1e-8, 1e18, 1000, dtype=np.float32)
    x = np.concatenate([-positive, [0.0], positive]).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], np.arcsinh(x.astype(np.float64)), rtol=2e-7, atol=2e-7)
