from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.pipeline.assembling import MaskStore
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.slides.grid import TileGrid

GRID = TileGrid.of_slide((500, 700), Mpp(1.0, 1.0, "file"), 1.0)


def test_tiles_land_in_their_places_and_the_rest_is_background(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected = np.full((700, 500), 3, np.uint8)
    chosen = [t for t in GRID.tiles() if (t.t_row, t.t_column) in {(0, 1), (2, 0), (2, 2), (3, 1)}]
    with MaskStore(tmp_path, GRID, background=3) as store:
        for tile in chosen:
            labels = rng.integers(0, 4, (224, 224), np.uint8)
            store.put(tile, labels)
            y, x = tile.t_row * 224, tile.t_column * 224
            part = expected[y : y + 224, x : x + 224]
            part[:] = labels[: part.shape[0], : part.shape[1]]
        mask = store.finish()
        assert np.array_equal(mask, expected)
        assert store.label_counts.tolist() == np.bincount(expected.ravel(), minlength=4).tolist()
        with pytest.raises(ValueError, match="read-only"):
            mask[0, 0] = 1
        del mask
    assert list(tmp_path.iterdir()) == []


def test_a_slide_without_tissue_is_all_background(tmp_path: Path) -> None:
    with MaskStore(tmp_path, GRID, background=3) as store:
        mask = store.finish()
        assert mask.shape == (700, 500)
        assert np.unique(mask).tolist() == [3]
        del mask


def test_the_file_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), MaskStore(tmp_path, GRID, background=3):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        MaskStore(tmp_path / "none", GRID, background=3)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", [0, 1000, 2 * 112_000 - 4000, 349_999])
def test_a_full_disk_is_an_output_error(tmp_path: Path, limit: int) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.pipeline.assembling import MaskStore
from sshr_deploy.runtime.slides.grid import TileGrid
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
grid = TileGrid.of_slide((500, 700), Mpp(1.0, 1.0, "file"), 1.0)
try:
    with MaskStore(Path(sys.argv[1]), grid, background=3) as store:
        store.finish()
except OutputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "free space or choose another" in done.stdout
    assert list(tmp_path.iterdir()) == []
