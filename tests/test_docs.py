"""What the documents say is there: the command reference is that of --help, and the README's commands exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.test_places import model

from ami.cli.manual import PAGES, help_of, manual
from ami.models import checkpoint
from tiny_stores import maze_store

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(
    r"^\s*(?:\$ )?((?:ami|make) .*)$",
    "\n".join(re.findall(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)),
    re.MULTILINE,
)


def words(text: str) -> list[str]:
    """Without the breaks of lines, which are not the same in every version of what prints them."""
    return [word for word in text.split() if word.strip("-")]


def test_the_reference_is_what_help_says() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert words(written) == words(manual()), "the reference is old: run `make docs`"


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_has_a_word_of_its_own(page: str) -> None:
    said = help_of(page)
    flags = [flag for flag in re.findall(r"^\W*(--[a-z-]+)", said, re.MULTILINE) if flag.strip("-")]
    assert "--json" in flags
    for flag in flags:
        described = re.search(rf"^\W*{flag}(?: [^\s]+)*? {{2,}}(\S.*)$|^\W*{flag} .*\n\s+(\S.*)$", said, re.MULTILINE)
        assert described, f"{flag} of ami {page} has no description"
        assert not (described[1] or described[2]).startswith("("), f"{flag} of ami {page} says only its default"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_exist(command: str) -> None:
    said = shlex.split(command, comments=True)
    if said[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in said[1:] if "=" not in word)
        return
    page = " ".join(said[1:3]) if said[1] in ("data", "memory") else said[1]
    assert page in PAGES
    flags = [word.split("=")[0] for word in said if word.startswith("--")]
    assert set(flags) <= set(re.findall(r"--[a-z-]+", help_of(page)))


def test_the_way_back_in_the_tutorial_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    maze_store(tmp_path / "runs/demo/data/mazes", 1, 60)
    papers = checkpoint.Provenance("places", checkpoint.code_version())
    checkpoint.save(tmp_path / "runs/demo/run/checkpoint", model(), papers)
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL) if "follow(" in each]
    held: dict[str, Any] = {}
    exec(compile(block, "tutorial", "exec"), held)
    assert held["last"].time in [found.moment.time for found in held["alike"]]
    assert held["alike"][0].moment.time == pytest.approx(10.0)  # what was asked for is found
    assert torch.isfinite(held["ways"](held["here"][None, :2])).all()
    assert "seen last at" in capsys.readouterr().out


def test_every_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    for target in phony[1].split():
        assert re.search(rf"^{target}:.* ## \S", makefile, re.MULTILINE), target
