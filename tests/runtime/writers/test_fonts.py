"""Names in any script: a font of the machine that has the letters, or the letters escaped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
from PIL import Image

from sshr_deploy.profiles import Profile, TissueClass
from sshr_deploy.runtime.writers import fonts
from sshr_deploy.runtime.writers.fonts import lettering_for
from sshr_deploy.runtime.writers.overlay import write_overlay

ASCII = "".join(map(chr, range(33, 127)))
CHINESE = "肿瘤"
KOREAN = "종양"


def make_font(path: Path, characters: str) -> Path:
    """A TrueType font whose glyphs are bars, each character's at another place."""
    names = [".notdef", *(f"u{ord(c):04x}" for c in characters)]
    glyphs = {}
    for index, name in enumerate(names):
        pen = TTGlyphPen(None)
        low, right = 100 * (index % 8), 300 + 50 * (index // 8)
        pen.moveTo((50, low))
        for point in ((50, low + 80), (right, low + 80), (right, low)):
            pen.lineTo(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, characters), names[1:], strict=True)))
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=1000, usWinAscent=1000, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return path


def test_ascii_needs_no_font_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_system_font", lambda *_: pytest.fail("looked for a font"))
    assert lettering_for([ASCII], 20).shown(f" {ASCII}\t\n x") == f"{ASCII} x"


def test_a_font_that_has_the_letters_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    korean = make_font(tmp_path / "korean.ttf", ASCII + KOREAN)
    chinese = make_font(tmp_path / "chinese.ttf", ASCII + CHINESE)
    missing, broken = tmp_path / "none.ttf", tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", (*map(str, (missing, broken, korean, chinese)),))
    for text, path in ((f"{CHINESE} 1", chinese), (f"{KOREAN} 1", korean)):
        lettering = lettering_for([text, "stroma"], 20)
        assert getattr(lettering.font, "path", None) == str(path)
        assert lettering.shown(text) == text


def test_what_no_font_has_is_escaped_and_stays_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())
    shown = lettering_for([CHINESE, KOREAN], 20).shown
    assert shown(f"a {CHINESE}.svs") == "a \\u80bf\\u7624.svs"
    assert shown(CHINESE) != shown("间质")
    assert shown("nécrose №") == shown("ne\u0301crose №") == "necrose No"
    assert shown("\udc80\x07\u202e") == "\\udc80\\x07\\u202e"
    half = make_font(tmp_path / "half.ttf", ASCII + CHINESE[0])
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", (str(half),))
    assert lettering_for([CHINESE], 20).shown(CHINESE) == "肿\\u7624"


def test_coverage_is_what_the_fonts_character_map_says() -> None:
    """Every font of this machine that is listed, against its own table."""
    sample = "aé中가Жאπ→√𝄞\u2003"
    found = 0
    for name in fonts.SYSTEM_FONTS:
        font = fonts._system_font(name, 20)
        if font is None:
            continue
        found += 1
        try:
            table = TTFont(font.path, fontNumber=0).getBestCmap()
        except TTLibError:
            continue
        lettering = fonts.Lettering(font)
        for character in sample.strip():
            assert lettering.draws(character) == (ord(character) in table), (name, character)
    if not found:
        pytest.skip("no listed font on this machine")


@pytest.mark.parametrize("has_font", [True, False])
def test_an_overlay_never_shows_question_marks(
    has_font: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strip differs with the name's letters, so they are drawn, as glyphs or escaped."""
    font = make_font(tmp_path / "bars.ttf", ASCII + CHINESE + "间质")
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", (str(font),) if has_font else ())
    pictures = []
    for name in (CHINESE, "间质", CHINESE):
        profile = Profile(
            name="x", title="x", mpp_um=1.0, gate_threshold=0.2, background_color="#ffffff",
            classes=(TissueClass(name=name, color="#aa0000"),),
        )  # fmt: skip
        path = tmp_path / "o.png"
        write_overlay(
            path, np.full((60, 400, 3), 200, np.uint8), np.zeros((60, 400), np.uint8),
            profile=profile, shares={}, title="a.svs", mpp_um=2.0,
        )  # fmt: skip
        pictures.append(np.asarray(Image.open(path))[60:])
    assert pictures[0].shape == pictures[2].shape and (pictures[0] == pictures[2]).all()
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
