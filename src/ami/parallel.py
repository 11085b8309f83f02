"""Everything that knows of more than one process, and where each computes; the identity when there is one."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # 0.7 s to import: only where there are several processes


def device(name: str = "auto") -> torch.device:
    """Where this process computes: ``cpu``, a GPU of its own (``cuda``), or ``auto``, a GPU where there is one."""
    able = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not able):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ValueError(f"there is no device '{name}' here; choose auto, cpu or cuda")
    if not able:
        raise ValueError("the device is cuda, and this PyTorch finds no GPU; choose cpu or auto")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cuda", torch.cuda.current_device())


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie; the CPU where it has none."""
    return next((each.device for each in module.parameters()), torch.device("cpu"))


def start(where: torch.device) -> None:
    """Join the other processes when launched by ``torchrun``; do nothing otherwise."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the other processes, also after a failure.

    Modules with shared weights lie in cycles and hold on to the group, and a group that is still held when Python ends
    now and then aborts it: so they are collected first.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Until every process has come this far."""
    if size() > 1:
        dist.barrier()


def first(act: Callable[[], object]) -> None:
    """Let the first process act while the others wait; where it fails, none goes on."""
    fine = torch.zeros(1)
    try:
        if rank() == 0:
            act()
            fine += 1
    finally:
        if size() > 1:
            dist.broadcast(fine, 0)
    if not fine:
        raise RuntimeError("the first process could not go on; it says why")


def total(value: float) -> float:
    """Sum of ``value`` over all ranks."""
    return float(mean(torch.tensor(value, dtype=torch.float64))) * size()


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
    """Replace each gradient by its mean over ranks, in one message; those of shared weights are it already.

    A parameter that this rank's losses did not touch counts as zero: which heads are used may differ by rank.
    """
    held = [p for p in module.parameters() if p.requires_grad and not is_shared(p)]
    if size() == 1 or not held:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in held])
    dist.all_reduce(flat)
    flat /= size()
    for parameter, gradient in zip(held, flat.split([p.numel() for p in held]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


def share_out(module: nn.Module, kind: type[nn.Module]) -> None:
    """Leave each process a share of the weights of every block of a kind: of each weight, some of its rows.

    A block borrows the other shares while it computes, in both directions, and gives its gradient back as a mean over
    ranks. What lies around the blocks (a small part, once a model is large) stays whole everywhere. Optimisers must be
    built afterwards. Source: Rajbhandari et al. 2020, "ZeRO", stage 3; PyTorch's FSDP2.
    """
    if size() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # It warns of in-place work on what a module returns; no block and no tower of ours is treated so.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    named, towers = dict(module.named_modules()), {}
    mesh = init_device_mesh(next(module.parameters()).device.type, (size(),))
    for name, block in named.items():
        if isinstance(block, kind):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
            towers[_caller(named, name)] = None
    for name in towers:  # so that its blocks know of each other, and the next one's weights are fetched in time
        around = {p for p in named[name].parameters() if not is_shared(p)}
        fully_shard(named[name], mesh=mesh, ignored_params=around)


def _caller(named: dict[str, nn.Module], name: str) -> str:
    """The nearest module around a block that is called itself, which a plain list of blocks is not."""
    while name:
        name = name.rpartition(".")[0]
        if type(named[name]).forward is not nn.Module.forward:
            break
    return name


def is_shared(tensor: Tensor) -> bool:
    """Whether each process holds only some rows of it."""
    if size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def rows_here(tensor: Tensor) -> tuple[int, int]:
    """The first row of a shared tensor that this process holds, and the one after its last."""
    share = -(-tensor.shape[0] // size())
    begin = min(rank() * share, tensor.shape[0])
    return begin, min(begin + share, tensor.shape[0])


def part_here(tensor: Tensor) -> Tensor:
    """This process's rows of a shared tensor, without a copy; any other tensor as it is."""
    return (cast("DTensor", tensor).to_local() if is_shared(tensor) else tensor).detach()


def shared_like(part: Tensor, like: Tensor) -> Tensor:
    """A shared tensor of which this process brings its rows, laid out as another one is."""
    from torch.distributed.tensor import DTensor

    layout, part = cast(DTensor, like), part.to(like.device)
    return DTensor.from_local(
        part, layout.device_mesh, layout.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the rows that other processes hold, all of which must ask for it."""
    return (cast("DTensor", tensor).full_tensor() if is_shared(tensor) else tensor).detach()


@torch.no_grad()
def length(tensors: Iterable[Tensor]) -> Tensor:
    """Of all numbers in them, those of every process's share too, as one vector."""
    held = list(tensors)
    found = nn.utils.get_total_norm([each for each in held if not is_shared(each)])
    if shares := [part_here(each) for each in held if is_shared(each)]:
        square = nn.utils.get_total_norm(shares).square()
        dist.all_reduce(square)
        found = (found.square() + square).sqrt()
    return found


def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> Tensor:
    """Shorten all gradients together to a length of at most ``longest``; the length that they had comes back."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    found = length(gradients)
    shrink = (longest / (found + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        part_here(gradient).mul_(shrink)
    return found
