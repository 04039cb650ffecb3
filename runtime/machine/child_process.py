"""A program that may fail, hang or print anything, run so that none of it reaches the caller."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

_REAP_S = 1.0


def run_child(
    command: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run `command` without input; give its exit code, stdout and stderr.

    Not `subprocess.run`: that waits for a killed child, which a hung driver never lets go.

    Args:
        command: program and arguments.
        timeout_s: it is killed after this many seconds.
        environ: its environment; that of this process by default.

    Raises:
        subprocess.TimeoutExpired: it was killed.
        OSError: it cannot be started.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=environ,
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except BaseException:
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_REAP_S)
        raise
    finally:
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    return child.returncode, out, err
