"""A GPU that is not there: what PyTorch would refuse on one is refused here, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
# An index may lie on the CPU, and so may a value that is put somewhere.
_MIXES = {Tensor.__getitem__, Tensor.__setitem__, Tensor.copy_, Tensor.index_put_}


class Elsewhere(TorchFunctionMode):
    """Tensors that were moved to :data:`GPU` are marked, and so is all that is computed from them.

    An operation on marked and unmarked tensors raises, unless the unmarked ones are single numbers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return GPU if _marked(args[0]) else torch.device("cpu")
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(func, args, kwargs)
        held = list(_tensors((args, kwargs)))
        far = [each for each in held if _marked(each)]
        if kwargs.get("device") == GPU:
            kwargs["device"] = "cpu"
            return _mark(func(*args, **kwargs))
        if func in _MIXES:
            assert not far or _marked(held[0]), "an index on the GPU into a tensor on the CPU"
        elif far:
            near = [each for each in held if not _marked(each) and each.ndim]
            assert not near, (
                f"{func.__name__} of a tensor on the GPU and one of shape {tuple(near[0].shape)} on the CPU"
            )
        if func is Tensor.numpy:
            assert not far or kwargs.get("force"), "numpy cannot read what lies on a GPU"
        found = func(*args, **kwargs)
        return _mark(found) if far else found

    def _moved(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        source, *words = args
        target = _target(words, kwargs)
        if func is Tensor.cpu:
            target = torch.device("cpu")
        words = [word for word in words if not isinstance(word, torch.device) and word not in ("cuda", "cpu")]
        words = [word.detach().view(word.shape) if isinstance(word, Tensor) else word for word in words]
        kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        found = source.to(*words, **kwargs) if func is Tensor.to and (words or kwargs) else source
        if found is source:
            found = source.view(source.shape)  # a tensor of its own, with a mark of its own
        gone = _marked(source) if target is None else target.type == "cuda"
        found.elsewhere = gone
        return found


def _target(words: list[Any], kwargs: Mapping[str, Any]) -> torch.device | None:
    for word in (*words, kwargs.get("device")):
        if isinstance(word, torch.device) or (isinstance(word, str) and word in ("cuda", "cpu")):
            return torch.device(word)
        if isinstance(word, Tensor):
            return GPU if _marked(word) else torch.device("cpu")
    return None


def put(module: nn.Module) -> nn.Module:
    """Every weight and buffer of a module, moved."""
    for each in (*module.parameters(), *module.buffers()):
        each.elsewhere = True
    return module


def _marked(tensor: Tensor) -> bool:
    return getattr(tensor, "elsewhere", False)


def _mark(found: Any) -> Any:
    for each in _tensors(found):
        each.elsewhere = True
    return found


def _tensors(held: Any) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, Mapping):
        for each in held.values():
            yield from _tensors(each)
    elif isinstance(held, tuple | list):
        for each in held:
            yield from _tensors(each)
