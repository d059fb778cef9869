"""Float32 matrix products for GPUs of compute capability 7.5, for which TensorRT-RTX has none.

A matrix product becomes an elementwise multiplication and a sum. TensorRT fuses these into one kernel, which does not
store the elementwise products in memory. Convolutions and float16 products do not change.
"""

from typing import Any

import numpy as np


def replace_matrix_products(module: Any, network: Any) -> None:
    """Replace the float32 matrix products of a parsed network.

    Parameters
    ----------
    module : module
        The TensorRT package.
    network : INetworkDefinition
        Network, which is changed in place.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    products = [layer for layer in layers if layer.type == module.LayerType.MATRIX_MULTIPLY]
    replaced = [layer for layer in products if layer.get_output(0).dtype == module.float32]
    for product in replaced:  # in order, because a later product may use the output of this one
        name, total = product.get_output(0).name, _sum(module, network, product)
        for layer in layers:
            for index in range(layer.num_inputs):
                given = layer.get_input(index)
                if given is not None and given.name == name:
                    layer.set_input(index, total)


def _sum(module: Any, network: Any, layer: Any) -> Any:
    """Product of the layer's inputs (..., m, k) and (..., k, n), each optionally transposed, as a sum: (..., m, n)."""
    layer.__class__ = module.IMatrixMultiplyLayer
    rank = len(layer.get_input(0).shape)
    leading = range(rank - 2)
    left = _unsqueezed(network, layer.get_input(0), rank)
    if layer.op0 == module.MatrixOperation.TRANSPOSE:
        left = _transposed(network, left, (*leading, rank - 1, rank - 2, rank))
    right = _unsqueezed(network, layer.get_input(1), rank - 2)
    if layer.op1 == module.MatrixOperation.TRANSPOSE:
        right = _transposed(network, right, (*leading, rank - 2, rank, rank - 1))
    products = network.add_elementwise(left, right, module.ElementWiseOperation.PROD)
    total = network.add_reduce(products.get_output(0), module.ReduceOperation.SUM, 1 << (rank - 1), keep_dims=False)
    products.name, total.name = f"{layer.name}.products", f"{layer.name}.sum"
    return total.get_output(0)


def _unsqueezed(network: Any, tensor: Any, axis: int) -> Any:
    axes = network.add_constant((1,), np.array([axis], dtype=np.int64))
    return network.add_unsqueeze(tensor, axes.get_output(0)).get_output(0)


def _transposed(network: Any, tensor: Any, order: tuple[int, ...]) -> Any:
    shuffle = network.add_shuffle(tensor)
    shuffle.first_transpose = order
    return shuffle.get_output(0)
