"""Mixed precision in training: bfloat16 convolutions where they are known to be fast, float32 elsewhere.

A processor without bfloat16 instructions emulates them, and a training step then takes ten times as long as in float32.
Recent CUDA GPUs and processors with AVX512-BF16 or AMX have these instructions.
"""

import functools

import torch


def mixed(device: torch.device, enabled: bool = True) -> torch.autocast:
    """The context in which to evaluate a network that is being trained on this device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device.type))


@functools.cache
def has_bfloat16(kind: str) -> bool:
    """Whether devices of this type (``cpu``, ``cuda``) are known to multiply natively in bfloat16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
