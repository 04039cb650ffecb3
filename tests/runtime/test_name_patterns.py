from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.name_patterns import leaves_out, matches
from sshr_deploy.runtime.settings import InferSettings


@pytest.mark.parametrize(
    ("pattern", "relative", "wanted"),
    [
        ("*.svs", "a.svs", True),
        ("*.svs", "2026/b/A.SVS", True),
        ("a*", "abc/b.svs", False),
        ("S24-????.svs", "x/s24-0001.svs", True),
        ("S24-????.svs", "s24-00012.svs", False),
        ("[ab].png", "B.png", True),
        ("x/*", "x/y/a.svs", True),
        ("x/*", "y/x/a.svs", False),
        ("x/", "x/y/a.svs", True),
        ("x/", "x", False),
        ("*/x/*", "y/x/a.svs", True),
        ("x/a.svs", "x/a.svs", True),
        ("x/a.svs", "z/x/a.svs", False),
    ],
)
def test_patterns(pattern: str, relative: str, wanted: bool) -> None:
    assert matches(pattern, PurePosixPath(relative)) is wanted


def test_exclude_wins_over_include() -> None:
    settings = InferSettings(include=("*.svs", "old/*.png"), exclude=("old/*", "b.*"))
    taken = [
        name
        for name in ("a.svs", "b.svs", "old/a.svs", "old/a.png", "a.png", "new/a.svs")
        if settings.takes(PurePosixPath(name))
    ]
    assert taken == ["a.svs", "new/a.svs"]


@pytest.mark.parametrize(
    ("pattern", "folder", "wanted"),
    [
        ("old/", "old", True),
        ("old/*", "old/deeper", True),
        ("*/old/", "2026/old", True),
        ("*/old/", "old", False),
        ("old/*.svs", "old", False),
        ("old", "old", False),
    ],
)
def test_whole_folders_are_left_out(pattern: str, folder: str, wanted: bool) -> None:
    assert leaves_out(PurePosixPath(folder), [pattern]) is wanted


def test_patterns_in_python() -> None:
    assert InferSettings().changed({"include": "*.svs"}).include == ("*.svs",)
    assert InferSettings().changed({"exclude": ["a", "b"]}).exclude == ("a", "b")
    for wrong in ([1], None, 3):
        with pytest.raises(UsageError, match=r"`include` is .*give a list of patterns"):
            InferSettings().changed({"include": wrong})  # type: ignore[typeddict-item]
    with pytest.raises(UsageError, match="`exclude` has an empty pattern"):
        InferSettings(exclude=("",))
