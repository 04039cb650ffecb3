from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sshr_deploy.runtime.viewer.serving import Server
from tests.runtime.small_slides import small_picture, small_slide
from tests.runtime.viewer.results import add_failure, add_image, add_slide, huge_slide, labels

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'<_script>.tif"
SIZE_PX = (700, 600)
"""Of the small slides, whose masks have pixels of the same size."""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, one whose file is gone, a huge one, an image, and a failure."""
    folder = tmp_path_factory.mktemp("viewer")
    slides, out = folder / "slides", folder / "out"
    slides.mkdir()
    for name in ("a.tif", EVIL):
        add_slide(out, small_slide(slides / name), labels(600, 700), SIZE_PX)
    add_slide(out, slides / "gone.tif", labels(600, 700), SIZE_PX)
    huge = huge_slide(slides / "huge.tif")
    mask = labels(3125, 3125, cell=250)
    add_slide(out, huge, mask, (100_000, 100_000), mpp_um=0.5, mask_mpp_um=16.0)
    Image.fromarray(small_picture(300, 400)).save(slides / "image.png")
    add_image(out, slides / "image.png", labels(300, 400))
    add_failure(out, slides / "broken.tif", f"{slides / 'broken.tif'} is empty (0 bytes)")
    return out


@pytest.fixture(scope="session")
def server(results: Path) -> Iterator[Server]:
    with Server(results) as server:
        thread = threading.Thread(target=server.run, name="viewer")
        thread.start()
        yield server
        server.stop()
        thread.join()
