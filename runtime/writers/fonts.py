"""A font that has the letters of a text, and what to draw where none has.

Pillow's built-in font holds ASCII and little more. Names of slides and classes may be in any
script, so a font of the machine is looked for, by the file names of those that systems come with.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf", "segoeui.ttf", "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansCJKjp-Regular.otf",
    "NotoSansCJKkr-Regular.otf", "SourceHanSans.ttc", "SourceHanSansSC-Regular.otf",
    "NotoSansSC-Regular.otf", "NotoSansJP-Regular.otf", "NotoSansKR-Regular.otf",
    "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "wqy-microhei.ttc", "wqy-zenhei.ttc",
    "ipaexg.ttf", "ipagp.ttf", "NanumGothic.ttf",
    "msyh.ttc", "msjh.ttc", "simsun.ttc", "YuGothM.ttc", "YuGothR.ttc", "meiryo.ttc",
    "msgothic.ttc", "malgun.ttf",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "STHeiti Light.ttc",
)  # fmt: skip
"""Files that Pillow looks for in the system's font folders: alphabets first, then Chinese,
Japanese and Korean on Linux, Windows and macOS. Paths work too."""

_NO_CHARACTER = "\uffff"
"""Unicode promises that this is no character, so a font draws its sign for a missing one."""


@dataclass
class Lettering:
    """A font, and texts as it can draw them."""

    font: Font
    _drawable: dict[str, bool] = field(default_factory=dict)

    def shown(self, text: str) -> str:
        """One line: what the font lacks loses its accents ("é" as "e"), else is escaped.

        An escaped character is written as in Python, such as `\\u4e2d`: unlike "?" it still tells
        two names apart.
        """
        return "".join(self._character(c) for c in _one_line(text))

    def lacks(self, text: str) -> int:
        """How many different characters of a text the font does not draw."""
        return sum(not self.draws(c) for c in set(_one_line(text)))

    def draws(self, character: str) -> bool:
        """Whether the font has a glyph of its own for a character."""
        if character not in self._drawable:
            self._drawable[character] = character == " " or self._has_glyph(character)
        return self._drawable[character]

    def _character(self, character: str) -> str:
        if self.draws(character):
            return character
        bare = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
        if bare and all(self.draws(c) for c in bare):
            return "".join(bare)
        return character.encode("unicode_escape").decode("ascii")

    def _has_glyph(self, character: str) -> bool:
        if not character.isprintable():  # controls, and the halves of file names that are no text
            return False
        return self._drawn(character) != self._drawn(_NO_CHARACTER)

    def _drawn(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self.font.getmask(character)
        return mask.size, bytes(mask)


def lettering_for(texts: Iterable[str], size_px: int) -> Lettering:
    """Pillow's own font if it has all that the texts need, else the system's that lacks least."""
    wanted = "".join(texts)
    best = Lettering(ImageFont.load_default(size_px))
    missing = best.lacks(wanted)
    for name in SYSTEM_FONTS:
        if missing == 0:
            break
        font = _system_font(name, size_px)
        if font is not None:
            other = Lettering(font)
            if (lacking := other.lacks(wanted)) < missing:
                best, missing = other, lacking
    return best


def _one_line(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@lru_cache(maxsize=128)
def _system_font(name: str, size_px: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size_px)
    except OSError:  # not on this machine, or no font
        return None
