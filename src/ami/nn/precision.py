"""Which arithmetic the silicon at hand does fast."""

from __future__ import annotations

import torch


def fast_precision(device: str = "cpu") -> str:
    """``bf16`` where matrix products in it have hardware of their own, else ``fp32``.

    Without that hardware a bfloat16 product on a CPU is up to seventy times slower than an fp32 one, and nothing warns.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else "fp32"
