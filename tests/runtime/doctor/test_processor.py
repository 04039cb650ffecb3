from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from sshr_deploy.runtime.doctor.processor import look_at_machine


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu sse4_2 avx avx2 fma", (True, False, False)),
        ("avx avx2 avx512f avx512bw avx512_vnni", (True, True, True)),
        ("avx avx2 avx_vnni", (True, False, True)),
        ("fpu sse2", (False, False, False)),
    ],
)
def test_flags(tmp_path: Path, flags: str, wanted: tuple[bool, bool, bool]) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nvmx flags\t: avx512f\nflags\t\t: {flags}\nbugs\t: none\n")
    found = look_at_machine(file).processor
    assert (found.avx2, found.avx512, found.vnni) == wanted


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    arm = tmp_path / "cpuinfo"
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    for file in (arm, tmp_path / "missing"):
        found = look_at_machine(file).processor
        assert (found.avx2, found.avx512, found.vnni) == (None, None, None)


def test_this_machine() -> None:
    found = look_at_machine()
    assert found.python == platform.python_version()
    assert 1 <= found.processor.cores <= (os.cpu_count() or 1)
    if Path("/proc/meminfo").exists():
        kib = int(Path("/proc/meminfo").read_text().split()[1])
        assert found.memory_mib == pytest.approx(kib / 1024, rel=0.01)
