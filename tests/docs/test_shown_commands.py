"""Commands, extras and paths that the pages show exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer

from sshr_deploy.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    if path.name not in ("commands.md", "changes.md")  # made from the code; of all releases
)
COMMAND = re.compile(r"^(?: {4}|\$ )*(?:\S*/)?(sshr-deploy .*)$")
INSTALL = re.compile(r"pip install [^`\n]*'(?:\.|sshr-deploy)\[([\w,]+)\]'")


def shown(page: str) -> Iterator[str]:
    """Lines of its code that call the command, with their continuations."""
    in_fence = False
    for line in (ROOT / page).read_text("utf-8").replace("\\\n", " ").splitlines():
        in_fence ^= line.startswith("```")
        if (in_fence or line.startswith("    ")) and (found := COMMAND.match(line)):
            yield found[1]


def unknown(line: str) -> list[str]:
    """Words of a command line that the app has no command, option or choice for."""
    command: Any = typer.main.get_command(app)
    said = line if " --" in line else line.partition("  ")[0]  # two blanks: words about it follow
    words = shlex.split(said)[1:]
    while words and (group := getattr(command, "commands", None)) is not None:
        if words[0].startswith("-"):
            break
        if words[0] not in group:
            return [words[0]]
        command = group[words.pop(0)]
    options = {name: param for param in command.params for name in param.opts}
    wrong = []
    for word, value in zip(words, [*words[1:], ""], strict=True):
        option = options.get(word)
        if word.startswith("-") and word not in ("-", "--help") and option is None:
            wrong.append(word)
        elif option is not None and value not in choices(option, value):
            wrong.append(f"{word} {value}")
    return wrong


def choices(option: Any, value: str) -> list[str]:
    """Values that an option takes; `value` where it takes any."""
    kind = option.type_descriptor.annotation
    is_choice = isinstance(kind, type) and issubclass(kind, Enum)
    return [str(choice.value) for choice in kind] if is_choice else [value]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    assert not [(line, wrong) for line in shown(page) if (wrong := unknown(line))]


def test_the_readme_shows_commands_and_a_wrong_one_is_found() -> None:
    assert len(list(shown("README.md"))) >= 9
    assert unknown("sshr-deploy infer slides --modle bundle --mode seemless") == [
        "--modle",
        "--mode seemless",
    ]
    assert unknown("sshr-deploy infre slides") == ["infre"]
    assert unknown("sshr-deploy engines lsit bundle") == ["lsit"]


@pytest.mark.parametrize("page", PAGES)
def test_extras_to_install_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = set(",".join(INSTALL.findall(text)).split(",")) - {""}
    if page in ("README.md", "docs/install.md"):  # where `[name]` is always an extra
        named |= set(",".join(re.findall(r"`(?:'\.)?\[([a-z,]+)\]'?`", text)).split(","))
        assert {"cpu", "export", "view"} <= named
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert named <= set(extras["optional-dependencies"])


def test_what_make_demo_writes_is_where_the_readme_says() -> None:
    readme, makefile = ((ROOT / name).read_text("utf-8") for name in ("README.md", "Makefile"))
    (recipe,) = re.findall(r"^demo: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    paths = set(re.findall(r"\bdemo/out/[\w/]+", readme))
    assert paths and paths <= set(re.findall(r"--out (\S+)", recipe))
