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
_FOLDER = Path(__file__).resolve().parent


def folder_of(name: str) -> Path:
    """Where the environment of a peer is, or would be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sshr-deploy" / "peers" / name


def python_of(name: str) -> Path:
    """The Python of that environment."""
    return folder_of(name) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def how_to_set_up(name: str) -> str:
    """The command that makes it."""
    return f"python -m sshr_deploy.benchmarks.peers.set_up {name}"


def set_up(name: str) -> Path:
    """Make the environment of a peer; gives its folder.

    Raises:
        UsageError: no such peer, or pip fails; pip has said why.
    """
    if name not in NAMES:
        raise UsageError(f"no peer {name!r}; choose {', '.join(NAMES)}")
    folder = folder_of(name)
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python_of(name)), "-m", "pip", "install", "-r", str(_FOLDER / f"{name}.txt")]
    if subprocess.run(command, check=False).returncode:
        raise UsageError(f"pip could not install {name} into {folder}; see its lines above")
    return folder


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
