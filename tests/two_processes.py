"""Runs a function in two or more processes that train together, to compare them with one.

``together(function, size)`` gives what it returned on each rank. The function stands at the top of a test file, is
called with its rank, and returns named tensors. It runs in a fresh interpreter, which finds it by file and name.
"""

import importlib.util
import inspect
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

LIMIT = 120  # seconds: a rank that waits for another that has failed would wait for ever


def both(function: Callable[[int], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What ``function(rank)`` returned on rank 0 and on rank 1."""
    return together(function, 2)


def together(function: Callable[[int], dict[str, Tensor]], size: int) -> list[dict[str, Tensor]]:
    """What ``function(rank)`` returned on each of ``size`` gloo processes of one thread each."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        shared = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        outputs = [Path(folder) / f"{rank}.safetensors" for rank in range(size)]
        command = [sys.executable, __file__, inspect.getfile(function), function.__name__]
        ranks = [
            subprocess.Popen([*command, output], env=shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
            for rank, output in enumerate(outputs)
        ]
        try:
            complaints = [rank.communicate(timeout=LIMIT)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert all(rank.returncode == 0 for rank in ranks), "\n".join(complaints)
        return [safetensors.torch.load_file(output) for output in outputs]


def _one(file: str, name: str, output: str) -> None:
    from ami import parallel

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("the_test_file", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parallel.start(torch.device("cpu"))
    returned = getattr(module, name)(parallel.rank())
    safetensors.torch.save_file({key: value.detach().clone() for key, value in returned.items()}, output)
    parallel.stop()


if __name__ == "__main__":
    _one(*sys.argv[1:])
