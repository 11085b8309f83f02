"""Jobs for another process, which must be able to import them."""

import os
import signal
import time
from pathlib import Path

import torch

from ami.cores import Tell


def square(number: int, tell: Tell) -> tuple[int, int, int]:
    tell("squaring", number)
    return number**2, os.getpid(), torch.get_num_threads()


def fail(error: Exception, tell: Tell) -> None:
    raise error


def die(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def talk(folder: Path, tell: Tell) -> None:
    """Until nobody listens."""
    (folder / str(os.getpid())).touch()
    while True:
        tell("on")
        time.sleep(0.02)
