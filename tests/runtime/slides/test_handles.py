"""Handles of a slide for several threads: never shared, all closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides import SlideReader, handles, open_slide
from sshr_deploy.runtime.slides.handles import SlideHandles
from tests.runtime.small_slides import small_slide


def is_closed(reader: SlideReader) -> bool:
    try:
        reader.read_region(0, 0, 0, 1, 1)
    except InputError as error:
        return "was closed" in str(error)
    return False


def test_each_borrower_has_a_handle_of_its_own_and_they_are_used_again(tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif")
    with SlideHandles(open_slide(path)) as slide:
        with slide.borrowed() as one, slide.borrowed() as other:
            assert one is not other
            assert (one.read_region(0, 9, 9, 5, 5) == other.read_region(0, 9, 9, 5, 5)).all()
        with slide.borrowed() as again, slide.borrowed() as last:
            assert {id(again), id(last)} == {id(one), id(other)}
    assert is_closed(one) and is_closed(other)


def test_a_handle_in_use_is_closed_by_who_gives_it_back(tmp_path: Path) -> None:
    slide = SlideHandles(open_slide(small_slide(tmp_path / "a.tif")))
    with pytest.raises(RuntimeError), slide.borrowed() as reader:
        slide.close()
        assert not is_closed(reader)
        raise RuntimeError
    assert is_closed(reader)
    slide.close()


def test_a_slide_that_is_gone_cannot_be_opened_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_slide(tmp_path / "a.tif")
    with SlideHandles(open_slide(path)) as slide, slide.borrowed():
        monkeypatch.setattr(handles, "open_slide", lambda _: open_slide(tmp_path / "b.tif"))
        with pytest.raises(InputError, match="cannot be read"), slide.borrowed():
            pass
