"""Consoles of the commands, whose text is text whatever the names of files hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from sshr_deploy.errors import one_line

_LEAST_WIDTH, _WIDTH = 20, 80
"""Columns that help needs, and those that are taken where the terminal states fewer, such as 0."""


class Terminal(Console):
    """A console that shows control characters as they are written in Python.

    Raw ones in the name of a slide would forge lines or command the terminal. A string is one
    line; a `Text` may have several.
    """

    def __init__(self, **options: Any) -> None:
        """Options are those of `Console`."""
        super().__init__(highlight=False, emoji=False, **options)
        if self.width < _LEAST_WIDTH:
            self.width = _WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` as one line."""
        return super().render_str(one_line(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Segments of what is no string, such as a `Text`, without control characters in them."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                text = "\n".join(map(one_line, segment.text.split("\n")))
                yield Segment(text, segment.style)


def stdout_console() -> Terminal:
    """Lines are wrapped at words on a terminal, and left whole elsewhere."""
    console = Terminal()
    console.soft_wrap = not console.is_terminal
    return console


def stderr_console() -> Terminal:
    """Lines are never wrapped."""
    return Terminal(stderr=True, soft_wrap=True)
