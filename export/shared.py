"""Parts of a module that are traced once, however often they are called.

Torch traces call by call, some ten milliseconds an operation: the network of an unrolled solver would come out 21
times, after more than a minute. A `Shared` part is a single operator in the trace, and `insert` puts its own graph
there.
"""

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx import inliner
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

DOMAIN = "mpi_fast"


class Shared(nn.Module):
    """A part whose outputs have the shapes and dtypes of its first inputs.

    The inputs have the same axes at every call; where the first call has one of length one, others may be longer.

    Parameters
    ----------
    name : str
        Of the part, unique within what is exported.
    module : nn.Module
        What it does, to tensors and lists of them.
    axes : dict
        ``{argument: {axis: name}}``: the axes that are not fixed.
    count : int
        Of outputs.
    """

    def __init__(self, name: str, module: nn.Module, axes: Mapping[str, Mapping[int, str]], count: int = 1) -> None:
        super().__init__()
        self.name, self.module, self.axes = name, module, axes
        self.outputs = [f"result_{number}" for number in range(count)]

    def forward(self, *inputs: Any) -> Any:
        """What the module makes of the inputs; in a trace, one operator."""
        if not torch.compiler.is_exporting():
            return self.module(*inputs)
        given = tree_leaves(inputs)
        alike = given[: len(self.outputs)]
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{self.name}",
            given,
            dtypes=[one.dtype for one in alike],
            shapes=[one.shape for one in alike],
            version=1,
        )
        return results[0] if len(self.outputs) == 1 else tuple(results)


def examples(module: nn.Module, inputs: Iterable[Tensor]) -> dict[str, tuple[Shared, dict[str, Any]]]:
    """The parts of a module, each with what it is first given when the module runs: names of part and arguments."""
    found: dict[str, tuple[Shared, dict[str, Any]]] = {}

    def note(part: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(part, Shared)
        arguments = inspect.signature(part.module.forward).parameters
        # Copies: of an argument given twice, as one tensor, the exporter would make one input.
        copies = tree_map(torch.clone, given)
        known, _ = found.setdefault(part.name, (part, dict(zip(arguments, copies, strict=True))))
        assert known is part, f"two parts have the name {part.name}"

    hooks = [part.register_forward_pre_hook(note) for part in module.modules() if isinstance(part, Shared)]
    if hooks:
        with torch.no_grad():
            module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def calls(model: onnx.ModelProto) -> Counter[str]:
    """How often a traced module calls which part."""
    return Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN)


def insert(model: onnx.ModelProto, parts: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """Replace calls by what is called, and simplify what has become constant, or the same, by that.

    Parts are functions of ONNX on the way. These have no weights, so the weights become inputs.
    """
    if not parts:
        return model
    for name, part in parts.items():
        weights = [tensor.name for tensor in part.graph.initializer]
        for node in model.graph.node:
            if (node.domain, node.op_type) == (DOMAIN, name):
                node.input.extend(f"{name}.{weight}" for weight in weights)
        for tensor in part.graph.initializer:
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = f"{name}.{tensor.name}"
        inputs = [value.name for value in part.graph.input] + weights
        outputs = [value.name for value in part.graph.output]
        function = onnx.helper.make_function(DOMAIN, name, inputs, outputs, part.graph.node, part.opset_import)
        model.functions.append(function)
    return tidied(inliner.inline_local_functions(model))


def tidied(model: onnx.ModelProto, largest: int = 2**18) -> onnx.ModelProto:
    """Simplify what was put together from optimised graphs: looking for patterns again would take longer than all else.

    What has become constant is computed, up to ``largest`` bytes of it; what is there twice goes.
    """
    graph = ir.from_proto(model)
    optimizer.fold_constants(graph, input_size_limit=largest, output_size_limit=largest)
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(size_limit=2**31),
        passes.CommonSubexpressionEliminationPass(),
    )(graph)
    return ir.to_proto(graph)
