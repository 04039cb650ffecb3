from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.errors import SourceError, UsageError
from sshr_deploy.runtime.pipeline.discovery import Found
from sshr_deploy.runtime.pipeline.sources import Sources, find_inputs, listed_sources
from sshr_deploy.runtime.settings import InferSettings
from tests.runtime.small_slides import small_slide


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/x.svs", "a/y.png", "b/x.svs", "old/z.svs", "old/notes.txt", "c.bmp"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def places(found: Found) -> list[str]:
    return [item.relative.as_posix() for item in found.inputs]


def find(*paths: Path, below: Path | None = None, **settings: tuple[str, ...]) -> Found:
    return find_inputs(Sources(paths, below), Path("out"), InferSettings(**settings))  # type: ignore[arg-type]


def test_patterns_choose_among_the_inputs(folder: Path) -> None:
    found = find(folder, include=("*.svs",), exclude=("b/*",))
    assert places(found) == ["a/x.svs", "old/z.svs"]
    assert sorted(found.not_chosen) == [folder / "a" / "y.png", folder / "b"]
    assert found.left_out == {".bmp": 1, ".txt": 1}
    assert find(folder, exclude=("old/",)).left_out == {".bmp": 1}, "old was searched"
    assert places(find(folder / "a" / "x.svs", include=("x*",))) == ["x.svs"]
    for source in (folder, folder / "a" / "x.svs"):
        with pytest.raises(UsageError, match="leave no input"):
            find(source, include=("nothing",))


def test_several_sources_are_as_each_alone(folder: Path) -> None:
    assert places(find(folder / "b", folder / "a" / "y.png")) == ["x.svs", "y.png"]
    assert places(find(folder / "a", folder / "a" / "x.svs", folder / "a")) == ["x.svs", "y.png"]
    assert Sources((folder / "b", folder / "a")).folder == folder


def test_two_inputs_never_share_a_folder_of_results(folder: Path) -> None:
    one, other = folder / "a" / "x.svs", folder / "b" / "x.svs"
    with pytest.raises(SourceError, match=f"inputs that cannot be used: {one} and") as caught:
        find(one, other)
    assert caught.value.problems == (
        f"{one} and {other} would share the folder x.svs of results; give the folder that holds "
        "both, with a list of what to take from it",
    )
    assert places(find(other, one, below=folder)) == ["b/x.svs", "a/x.svs"]


def test_all_that_is_wrong_with_a_list_is_said(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"used: .*lost.svs .*\(and 3 other problems\)") as caught:
        find(
            folder / "a", folder / "lost.svs", folder / "c.bmp", folder.parent,
            folder / "a" / ".." / ".." / "d.svs", below=folder,
        )  # fmt: skip
    lost, bmp, above, other = caught.value.problems
    assert "lost.svs cannot be read: No such file" in lost
    assert "c.bmp is neither a slide nor" in bmp
    assert f"{folder.parent} is not below {folder}" in above
    assert "d.svs is not below" in other


def test_a_list(folder: Path) -> None:
    content = f'# today\n\n  a/x.svs \r\n"{folder / "b"}"\n./a/../old/z.svs\n'
    for encoded in (content.encode(), content.encode("utf-8-sig"), content.encode("utf-16")):
        listed = listed_sources(encoded, "list", folder)
        assert places(find(*listed.paths, below=listed.below)) == [
            "a/x.svs", "b/x.svs", "old/z.svs",
        ]  # fmt: skip
        assert listed.folder == folder
    assert listed_sources(b"caf\xe9.svs\n", "list").paths == (Path("caf\udce9.svs"),)
    with pytest.raises(UsageError, match="stdin lists nothing"):
        listed_sources(b"# nothing\n", "stdin")
    with pytest.raises(UsageError, match="is no folder"):
        listed_sources(b"a", "list", folder / "c.bmp")


def test_files_of_one_slide_are_one_input(tmp_path: Path) -> None:
    (tmp_path / "y.vms").write_text("[Virtual Microscope Specimen]\nImageFile=y-tile.jpg\n")
    (tmp_path / "y-tile.jpg").touch()
    assert places(find(tmp_path / "y.vms", tmp_path / "y-tile.jpg")) == ["y.vms"]


def test_two_spellings_of_a_slide_are_one_input(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    slide = small_slide(tmp_path / "s" / "a.tif")
    other = tmp_path / "s" / ".." / "s" / "a.tif"
    found = find_inputs(Sources((slide, other)), tmp_path / "out", InferSettings())
    assert [item.path for item in found.inputs] == [slide]
