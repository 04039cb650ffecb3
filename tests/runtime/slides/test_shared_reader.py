"""A reader is closed once, and never under a read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides import SlideReader, open_slide
from sshr_deploy.runtime.slides.shared_reader import SharedReader
from tests.runtime.small_slides import small_slide


def is_closed(reader: SlideReader) -> bool:
    try:
        reader.read_region(0, 0, 0, 1, 1)
    except InputError as error:
        return "was closed" in str(error)
    return False


@pytest.fixture
def reader(tmp_path: Path) -> SlideReader:
    return open_slide(small_slide(tmp_path / "a.tif"))


def test_it_is_closed_by_its_owner_if_nobody_uses_it(reader: SlideReader) -> None:
    with SharedReader(reader) as shared:
        with shared.in_use() as one, shared.in_use() as other:
            assert one is other is reader
        assert not is_closed(reader)
    assert is_closed(reader)
    shared.close()
    with pytest.raises(InputError, match="was closed"), shared.in_use():
        pass


def test_the_last_user_closes_it_where_it_is_in_use(reader: SlideReader) -> None:
    shared = SharedReader(reader)
    with pytest.raises(RuntimeError), shared.in_use():
        with shared.in_use():
            shared.close()
        assert not is_closed(reader)
        raise RuntimeError
    assert is_closed(reader)
