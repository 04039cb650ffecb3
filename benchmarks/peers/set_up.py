"""Environments of the peers that cannot share this one: WSInfer and TIAToolbox.

    python -m sshr_deploy.benchmarks.peers.set_up wsinfer tiatoolbox

Each is a `venv` with the releases of NAME.txt beside this file, which says why they are these. They
lie in the user's cache folder, take 13 GB together (the GPU builds of PyTorch that the package
index has) and are made anew where they are there already.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

from sshr_deploy.errors import UsageError

NAMES = ("wsinfer", "tiatoolbox")
_NEWEST_PYTHON = {"wsinfer": (3, 12)}
_FOLDER = Path(__file__).resolve().parent


def folder_of(name: str) -> Path:
    """Where the environment of a peer is, or would be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sshr-deploy" / "peers" / name


def python_of(name: str) -> Path:
    """The Python of that environment."""
    return folder_of(name) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_set_up(name: str) -> bool:
    """Whether it is there, with all that it needs."""
    return python_of(name).exists() and not _unfinished(name).exists()


def how_to_set_up(name: str) -> str:
    """The command that makes it."""
    return f"python -m sshr_deploy.benchmarks.peers.set_up {name}"


def set_up(name: str) -> Path:
    """Make the environment of a peer; gives its folder.

    Raises:
        UsageError: no such peer, this Python is too new for it, or pip fails; pip has said why.
    """
    if name not in NAMES:
        raise UsageError(f"no peer {name!r}; choose {', '.join(NAMES)}")
    if sys.version_info[:2] > (newest := _NEWEST_PYTHON.get(name, sys.version_info[:2])):
        raise UsageError(
            f"{name} needs NumPy 1, of which newer Python has no build; run this by Python "
            f"{newest[0]}.{newest[1]} or 3.11"
        )
    folder = folder_of(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _unfinished(name).touch()
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python_of(name)), "-m", "pip", "install", "-r", str(_FOLDER / f"{name}.txt")]
    if subprocess.run(command, check=False).returncode:
        raise UsageError(f"pip could not install {name} into {folder}; see its lines above")
    _unfinished(name).unlink()
    return folder


def _unfinished(name: str) -> Path:
    """There while it is made, and afterwards where that was cut short or failed."""
    folder = folder_of(name)
    return folder.with_name(f"{folder.name}.unfinished")


def main() -> None:
    """Make the environments that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names:
        try:
            print(f"{name}: {set_up(name)}")
        except UsageError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
