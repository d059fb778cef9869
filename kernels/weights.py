"""Weights of a network in the layout of its kernels: float16 in the order of tensor cores, all others float32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import ModelError
from mpi_fast.kernels.launch import Array, Device
from mpi_fast.likelihood import WIDTHS

WIDTH, INNER, EMBEDDING = 16, 32, 64  # widths for which the kernels are written
OUTPUTS = 2  # channels of the last head: the correction, and the logarithm of the expected error

Parameters = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Convolutions:
    """Convolutions of a block at one resolution: weights in the layout of `pack`, concatenated, and biases."""

    weights: Array
    bias: Array


@dataclass(frozen=True)
class Block:
    """A `Corrector` of the network.

    Attributes
    ----------
    fine : Convolutions
        Convolutions at full resolution.
    coarse : Convolutions, or None
        Convolutions at half resolution, if the block has them.
    head : Convolutions
        Head, as float32 weights (outputs, 3, 3, 16) and biases.
    offset : int
        Index of the block's first modulation.
    """

    fine: Convolutions
    coarse: Convolutions | None
    head: Convolutions
    offset: int


@dataclass(frozen=True)
class Weights:
    """All weights of a network, on a device.

    Attributes
    ----------
    blocks : list of Block
        Weights of the correctors.
    embedding : tuple of arrays
        Weights and biases of the four layers of the `Conditioner`: two of the embedding, spreads, modulations.
    tails : tuple of arrays
        Weight and bias of the layer that gives the quantiles of a frame's errors.
    offsets : (blocks + 1,) int32
        Index of each block's first modulation; the last entry is their number.
    """

    blocks: list[Block]
    embedding: tuple[Array, ...]
    tails: tuple[Array, ...]
    offsets: Array

    @property
    def modulations(self) -> int:
        """Number of gains and shifts of all blocks."""
        return int(self.embedding[7].shape[0])

    @classmethod
    def upload(cls, parameters: Parameters, device: Device) -> "Weights":
        """Copy to a device the parameters of a `training.network.PosteriorNetwork`, given by their names in it.

        Raises
        ------
        ModelError
            For a network of widths for which the kernels are not written.
        """
        layers = ("embed.0", "embed.2", "spread", "modulation")
        embedding = [parameters[f"conditioner.{name}.{kind}"] for name in layers for kind in ("weight", "bias")]
        count = len(embedding[4])
        widths = [_widths(parameters, k) for k in range(count)]
        known = [(WIDTH,), (WIDTH, INNER)]
        found = (embedding[0].shape, len(parameters[f"correctors.{count - 1}.head.weight"]))
        if any(width not in known for width in widths) or found != ((EMBEDDING, 2 + len(WIDTHS)), OUTPUTS):
            raise ModelError(
                f"network of widths {sorted(set(widths))}, embedding {found[0]} and {found[1]} outputs: CUDA kernels "
                f"are written for widths {known}, embedding {(EMBEDDING, 2 + len(WIDTHS))} and {OUTPUTS} outputs"
            )
        offsets = 2 * np.cumsum([0, *(sum(width) for width in widths)], dtype=np.int32)
        blocks = [_block(parameters, k, int(offsets[k]), device) for k in range(count)]

        def upload(arrays: Sequence[NDArray[np.float32]]) -> tuple[Array, ...]:
            return tuple(device.upload(np.ascontiguousarray(array, np.float32)) for array in arrays)

        tails = upload([parameters["tails.weight"], parameters["tails.bias"]])
        return cls(blocks, upload(embedding), tails, device.upload(offsets.astype(np.int32)))


def pack(weight: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """A convolution's weight (Cout, Cin, ky, kx) in the order in which the lanes of a warp read it.

    Returns
    -------
    (taps * Cin / 16, Cout / 8, 32, 2) uint32
        Pairs of float16: the right factors of ``mma.m16n8k16``. The first axis runs over groups of 16 input channels of
        one tap. Lane ``l`` holds, for output channel ``l / 4`` of eight, the pairs of input channels that start at
        ``2 (l % 4)`` and at ``2 (l % 4) + 8``. Input channels are padded with zeros to a multiple of 16.
    """
    cout, cin, ky, kx = weight.shape
    full = np.zeros((cout, -(-cin // 16) * 16, ky * kx), np.float16)
    full[:, :cin] = weight.reshape(cout, cin, ky * kx)
    steps = full.reshape(cout // 8, 8, -1, 2, 4, 2, ky * kx)  # tile, lane / 4, group, register, lane % 4, pair, tap
    ordered = np.ascontiguousarray(steps.transpose(6, 2, 0, 1, 4, 3, 5))
    return ordered.view(np.uint32).reshape(-1, cout // 8, 32, 2)


def _widths(parameters: Parameters, block: int) -> tuple[int, ...]:
    """Channels of a block at full resolution and, if it has one, at half resolution."""
    names = (f"correctors.{block}.stages.0.first.weight", f"correctors.{block}.stages.1.down.weight")
    return tuple(len(parameters[name]) for name in names if name in parameters)


def _block(parameters: Parameters, block: int, offset: int, device: Device) -> Block:
    def several(*names: str) -> Convolutions:
        full = [f"correctors.{block}.{name}" for name in names]
        weights = np.concatenate([pack(parameters[f"{name}.weight"]).ravel() for name in full])
        bias = np.concatenate([parameters[f"{name}.bias"] for name in full])
        return Convolutions(device.upload(weights), device.upload(bias.astype(np.float32)))

    head = parameters[f"correctors.{block}.head.weight"]  # (outputs, 16, 3, 3)
    taps = np.ascontiguousarray(head.transpose(0, 2, 3, 1), np.float32)
    bias = np.asarray(parameters[f"correctors.{block}.head.bias"], np.float32)
    half = [f"stages.1.{name}" for name in ("down", "block.first", "block.second", "up")]
    return Block(
        several("inject", "stages.0.first", "stages.0.second"),
        several(*half) if f"correctors.{block}.{half[0]}.weight" in parameters else None,
        Convolutions(device.upload(taps), device.upload(bias)),
        offset,
    )
