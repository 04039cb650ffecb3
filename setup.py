"""Everything is in pyproject.toml; this only refuses to build half a package."""

import runpy
import sys
from pathlib import Path

from setuptools import setup

PACKAGE = Path(__file__).resolve().parent / "sshr_deploy"

try:
    runpy.run_path(str(PACKAGE / "_links.py"))["require_links"](str(PACKAGE))
except ImportError as error:
    sys.exit(str(error))

setup()
