"""The command reference, from what --help says: ``python -m ami.cli.manual > docs/cli.md``."""

from __future__ import annotations

import contextlib
import io
import os

from ami.cli.entry import parse
from ami.cli.verbs import VERBS

_GROUPS = {
    "data": ("info", "check"),
    "memory": ("info", "check", "prune", "forget", "reembed", "export", "import"),
}
PAGES = tuple(f"{name} {verb}".strip() for name in VERBS for verb in _GROUPS.get(name, ("",)))
_INTRODUCTION = """# The command line

Made from `--help` by `make docs`; a test holds the two together.

Every verb exits with 0 when it did what was asked; with 2, and one sentence that says what to do, when what was asked
cannot be done; with 1 when it failed; with 130 when it was interrupted. With `--json` it prints one JSON document and
nothing else. Bars are shown on a terminal only. No verb writes over what is there unless it is asked to. Where an error
is a riddle, set `AMI_TRACEBACK=1` to see where it came from."""


def manual() -> str:
    """All of the reference, as Markdown."""
    pages = [f"## ami {page}\n\n```text\n{_plain(help_of(page))}\n```" for page in PAGES]
    return "\n\n".join([_INTRODUCTION, *pages]) + "\n"


def help_of(page: str) -> str:
    """What ``ami VERB --help`` prints, 100 columns wide."""
    printed, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            parse([*page.split(), "--help"])
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return printed.getvalue()


def _plain(text: str) -> str:
    """Help without its rules, and without what every page says of --help itself."""
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(
        line for line in lines if (line.strip(" -") and not line.lstrip().startswith("-h, --help")) or not line
    )


if __name__ == "__main__":
    print(manual(), end="")
