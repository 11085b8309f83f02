"""The command line: thin verbs over the library. Only here is anything printed."""

from ami.cli.entry import main

__all__ = ["main"]
