from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath

import pytest

from sshr_deploy.errors import InputError, SourceError, UsageError
from sshr_deploy.runtime.pixel_sizes import GivenMpp, MppTable, read_mpp_table
from sshr_deploy.runtime.settings import InferSettings


def table_of(tmp_path: Path, text: str | bytes) -> MppTable:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mpp_table(path)


def problems_of(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(SourceError, match=r"`mpp_table` .*table.csv: ") as caught:
        table_of(tmp_path, text)
    return caught.value.problems


@pytest.mark.parametrize(
    "text",
    [
        "name,mpp\na.svs,0.25\nb/c.svs,0.5\n\n",
        "\ufeffMPP; Name \n0,25;a.svs\n 0.5 ;b/c.svs\n",
        'name\tmpp\n"a.svs"\t0,25\nb/c.svs\t0.5',
        "name,pattern,mpp\r\na.svs,,0.25\r\nb/c.svs,,0.5\r\n",
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, text: str) -> None:
    for content in (text.encode(), text.lstrip("\ufeff").encode("utf-16")):
        table = table_of(tmp_path, content)
        sizes = [table.mpp_um(PurePosixPath(p)) for p in ("a.svs", "x/A.svs", "b/c.svs", "c.svs")]
        assert sizes == [0.25, 0.25, 0.5, None]


def test_the_closest_row_counts(tmp_path: Path) -> None:
    table = table_of(
        tmp_path, "name,pattern,mpp\na.svs,,1\nx/a.svs,,2\n,*.svs,3\n,x/,4\n,y/*,3\n,*.tif,4\n"
    )
    places = ("x/a.svs", "y/a.svs", "y/b.svs", "x/b.tif", "b.svs", "b.ndpi")
    assert [table.mpp_um(PurePosixPath(p)) for p in places] == [2, 1, 3, 4, 3, None]
    with pytest.raises(InputError, match=r"x/b\.svs has several pixel sizes .*3 by \*\.svs, 4 by"):
        table.mpp_um(PurePosixPath("x/b.svs"))
    with pytest.raises(SourceError, match=r"x/b\.svs .* \(and 1 other problem\)"):
        table.check(map(PurePosixPath, ("x/b.svs", "b.svs", "x/c.svs")))
    assert table.unused([PurePosixPath("x/b.tif"), PurePosixPath("y/a.svs")]) == ["x/a.svs"]
    assert pickle.loads(pickle.dumps(table)) == table


def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        "name,pattern,mpp\na,,0.25\n,,0.5\nb,*,0.5\nA,,0.25\nc,,400\nd,,x\ne,0.5\nf*,,1\n,g,\n",
    )
    wanted = (
        "line 3: it has no name", "line 4: it has both", "line 5: A stands in an earlier row",
        "line 6: '400' is no pixel size of a slide: give um per pixel, 0.05 to 80",
        "line 7: 'x' is no", "line 8: has 2 columns", "line 9: 'f*' is a pattern", "line 10: '' is",
    )  # fmt: skip
    assert len(found) == len(wanted)
    for line, start in zip(found, wanted, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no column ''"),
        ("slide,mpp\na,1\n", "there is no column 'slide'"),
        ("name,mpp_um\na,1\n", "there is no column 'mpp_um'"),
        ("name\na\n", "a column is missing"),
        ("name,mpp,mpp\na,1,1\n", "the column mpp stands twice"),
        ("name,mpp\n\n", "it has no rows"),
    ],
)
def test_columns_are_checked(tmp_path: Path, text: str, says: str) -> None:
    assert says in problems_of(tmp_path, text)[0]


def test_a_table_comes_before_the_size_for_all(tmp_path: Path) -> None:
    table = table_of(tmp_path, "name,mpp\na.svs,0.25\n")
    a, b = PurePosixPath("a.svs"), PurePosixPath("b.svs")
    both = InferSettings(mpp_um=0.5, mpp_table=table)
    assert (both.mpp_of(a), both.mpp_of(b)) == (
        GivenMpp(0.25, source="--mpp-table"), GivenMpp(0.5),
    )  # fmt: skip
    forced = InferSettings(force_mpp=True, mpp_table=table)
    assert (forced.mpp_of(a), forced.mpp_of(b)) == (
        GivenMpp(0.25, force=True, source="--mpp-table"), GivenMpp(None),
    )  # fmt: skip


def test_in_python_a_path_is_enough(tmp_path: Path) -> None:
    table = table_of(tmp_path, "name,mpp\na.svs,0.25\n")
    assert InferSettings().changed({"mpp_table": tmp_path / "table.csv"}).mpp_table == table
    with pytest.raises(UsageError, match="`mpp_table` is 3; give the path"):
        InferSettings().changed({"mpp_table": 3})  # type: ignore[typeddict-item]
    with pytest.raises(UsageError, match=r"`mpp_table` none.csv cannot be read: No such file"):
        InferSettings().changed({"mpp_table": "none.csv"})
