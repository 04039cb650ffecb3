"""A program that stands in for nvidia-smi."""

from __future__ import annotations

import sys
from pathlib import Path


def put_nvidia_smi(folder: Path, output: str, code: int = 0) -> None:
    """Write `folder`/nvidia-smi, which prints `output` and exits with `code`."""
    script = folder / "nvidia-smi"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.stdout.reconfigure(encoding='utf-8')\nsys.stdout.write({output!r})\nsys.exit({code})\n",
        "utf-8",
    )
    script.chmod(0o755)
