"""Everything that knows of more than one process; the identity when there is one."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> None:
    """Join the other processes when launched by ``torchrun``; do nothing otherwise."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Mean(torch.autograd.Function):
    """Mean over ranks. Every rank's output depends on every rank's input, so the gradient is summed back as well."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()


def mean(tensor: Tensor) -> Tensor:
    """Mean of ``tensor`` over all ranks, differentiable.

    With gradients averaged over ranks afterwards (:func:`average_gradients`), a loss built on this has the gradient
    that one process would have on the whole batch.
    """
    return _Mean.apply(tensor) if size() > 1 else tensor


def average_gradients(module: nn.Module) -> None:
    """Replace each gradient by its mean over ranks, in one message.

    A parameter that this rank's losses did not touch counts as zero: which heads are used may differ by rank.
    """
    if size() == 1:
        return
    held = [p for p in module.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in held])
    dist.all_reduce(flat)
    flat /= size()
    for parameter, gradient in zip(held, flat.split([p.numel() for p in held]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


def same_everywhere(value: float) -> bool:
    """Whether all ranks hold this value: a guard against processes that drift apart."""
    if size() == 1:
        return True
    both = torch.tensor([value, -value], dtype=torch.float64)
    dist.all_reduce(both, op=dist.ReduceOp.MAX)
    return bool(both[0] == -both[1])
