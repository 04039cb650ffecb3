"""A watch is killed again and again while slides arrive; nothing is lost and nothing is half done.

Five kills; SSHR_KILLS=30 sets another number.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sshr_deploy.runtime.watch.queue import Queue, State
from tests.runtime.small_slides import small_slide

KILLS = int(os.environ.get("SSHR_KILLS", "5"))
FILES = ("mask.ome.tif", "overlay.png", "regions.geojson")
LIMIT_S = 120


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_kills_while_slides_arrive(small_bundle_dir: Path, tmp_path: Path) -> None:
    scans, out, rng = tmp_path / "scans", tmp_path / "out", random.Random(15)
    scans.mkdir()
    pool = [small_slide(tmp_path / f"{n}.tif", seed=n) for n in range(10)]
    arriving = threading.Thread(target=arrive, args=(scans, pool))
    arriving.start()
    command = watch_command(small_bundle_dir, scans, out)
    for _ in range(KILLS):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            time.sleep(rng.uniform(1.0, 5.0))
            process.kill()
        whole = list(out.rglob("summary.json"))
        assert all(json.loads(path.read_text())["files"] for path in whole)
    arriving.join()
    last = subprocess.run([*command, "--once"], timeout=LIMIT_S, check=False, capture_output=True)
    assert last.returncode in (0, 1), last.stderr
    calm = tmp_path / "calm"
    undisturbed = watch_command(small_bundle_dir, scans, calm)
    subprocess.run([*undisturbed, "--once"], timeout=LIMIT_S, check=False, capture_output=True)
    assert contents(out) == contents(calm)
    assert len(contents(out)) == 9 * len(FILES)
    with Queue(out / "queue.sqlite") as queue:
        states = {slide.path.name: slide.state for slide in queue.slides()}
        done = [ending.path.name for ending in queue.endings() if ending.state is State.DONE]
    assert states.pop("8.tif") in (State.FAILED, State.QUARANTINED)
    assert set(states.values()) == {State.DONE}
    assert sorted(set(done)) == sorted(states)
    assert all(done.count(name) == 1 for name in states if name != "6.tif")  # it was replaced
    assert not [path for path in out.rglob(".*") if path.name != ".queue.sqlite.lock"]


def watch_command(bundle: Path, scans: Path, out: Path) -> list[str]:
    options = [
        "--settle",
        "0.6",
        "--poll",
        "0.2",
        "--mode",
        "reference",
        "--batch",
        "1",
        "--min-free-gib",
        "0",
        "--quiet",
    ]
    places = [str(scans), "--model", str(bundle), "--out", str(out)]
    return [sys.executable, "-m", "sshr_deploy", "watch", *places, *options]


def arrive(scans: Path, pool: list[Path]) -> None:
    """Some copied slowly, one renamed at the end, one replaced later, one never whole."""
    for number, slide in enumerate(pool):
        content = slide.read_bytes()
        if number == 5:
            part = scans / "5.tif.part"
            slowly(part, content)
            part.rename(scans / "5.tif")
        elif number == 8:
            (scans / "8.tif").write_bytes(content[:20_000])
        elif number < 3:
            slowly(scans / slide.name, content)
        else:
            shutil.copyfile(slide, scans / slide.name)
        time.sleep(0.3)
    shutil.copyfile(pool[7], scans / "6.tif")


def slowly(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(content), len(content) // 4 + 1):
            file.write(content[start : start + len(content) // 4 + 1])
            file.flush()
            time.sleep(0.2)


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for name in FILES
        for path in sorted(out.rglob(name))
    }
