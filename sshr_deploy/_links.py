"""The guard for clones made without symbolic links; `setup.py` and the package itself call it."""

from __future__ import annotations

import os

LINKS = ("train", "export", "runtime", "benchmarks")


def require_links(package_dir: str) -> None:
    """Check that what git stores as links did not arrive as small text files.

    A wheel has real folders in their place, so it passes too.

    Raises:
        ImportError: one of `LINKS` in `package_dir` is a file.
    """
    for name in LINKS:
        if os.path.isfile(os.path.join(package_dir, name)):  # noqa: PTH113, PTH118 - microseconds
            raise ImportError(
                f"sshr_deploy/{name} is not a link to ../{name}: clone again with "
                "`git clone -c core.symlinks=true` (on Windows enable Developer Mode first)"
            )
