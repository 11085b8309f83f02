"""From the command line's words to an exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from ami.cli.verb import Group, Heavy, Verb
from ami.cli.verbs import VERBS, Reproduce

_MARKERS = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.PositionalMetavarFromFieldName,
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MISTAKES = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
_TRACEBACK = "AMI_TRACEBACK"  # set it to see where an error came from


def main() -> None:
    """Run the command that was typed."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Do what ``words`` ask and return the exit code; words that cannot be understood end in ``SystemExit(2)``."""
    verb = parse(words)
    try:
        if isinstance(verb, Heavy):
            _use_the_machine(verb.threads)
        outcome = verb.run()
        if outcome.silent:
            return outcome.code
        if verb.json:
            print(json.dumps(outcome.document, indent=2, allow_nan=False), flush=True)
        else:
            outcome.show()
        return outcome.code
    except KeyboardInterrupt:
        return _say(f"interrupted; {verb.after_interrupt}", 130)
    except BrokenPipeError:  # whoever read our output has seen enough; Python's own last flush shall not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        if _TRACEBACK in os.environ:
            raise
        return _say(*_explain(error, verb))


def parse(words: Sequence[str]) -> Verb:
    """The verb that ``words`` name, with its settings."""
    if list(words[:1]) == ["reproduce"]:  # for `make reproduce-NAME`: not listed among the verbs
        return tyro.cli(Reproduce, prog="ami reproduce", args=words[1:], config=_MARKERS)
    description = "AMI: a small world model that learns from video, plans, and can be verified."
    kinds: Any = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in VERBS.items())]  # noqa: UP007
    verb: Any = tyro.cli(kinds, prog="ami", description=description, args=words, config=_MARKERS)
    return verb.what if isinstance(verb, Group) else verb


def _explain(error: Exception, verb: Verb) -> tuple[str, int]:
    """One sentence about an error, and the exit code that goes with it."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        what = verb.writes or "a file"
        return (
            f"{what} could not be written, the disk is full ({error.strerror}): what was there before is intact; "
            f"make room and run the same command again",
            2,
        )
    if isinstance(error, OSError):
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return said, 2 if isinstance(error, _MISTAKES) else 1
    return str(error), 2 if isinstance(error, ValueError) else 1


def _say(sentence: str, code: int) -> int:
    print(f"ami: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    return code


def _use_the_machine(threads: int | None) -> None:
    """Compute on ``threads`` cores: all that this process may use, where neither it nor OMP_NUM_THREADS says."""
    from ami import cores

    if threads is not None and threads < 1:
        raise ValueError(f"--threads is {threads}; at least 1 is needed")
    cores.compute_on(threads)
