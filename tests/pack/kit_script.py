"""The script of a kit as a process, and ways to spoil a kit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.pack.stand_ins import edit_kit


def run(kit: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, kit / "install.py", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PIP_FIND_LINKS": "/nowhere"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def set_field(name: str, value: object, *, rehash: bool = True) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content[name] = value

    return lambda kit: edit_kit(kit, change, rehash=rehash)
