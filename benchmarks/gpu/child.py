"""The process of one part of `gpu.check`; `gpu.process` starts it and reads what it writes.

A part writes each row when it has it, as a line of JSON, so that a crash or a deadline costs only
what comes after.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from sshr_deploy.errors import MissingExtraError, SshrDeployError, first_line

_NOTICE_S = 3.0
"""Time that a part has before its deadline to print where it hangs."""


class PartOutput:
    """Handed to a part: takes its rows, and knows how much time it has."""

    document: Path | None
    """Where a benchmark of the common form keeps its document; None keeps it in memory."""

    def __init__(self, file: TextIO, limit_s: float, document: Path | None = None) -> None:
        self._file, self.document = file, document
        self._end = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds until the process is killed."""
        return self._end - time.monotonic()

    def row(self, row: dict[str, Any]) -> None:
        """Keep a row, whatever happens later.

        Raises:
            ValueError: a number in it is NaN or infinite.
        """
        self.write("row", row)

    def on_step(self, text: str) -> None:
        """Tell the user what is going on."""
        print(text, file=sys.stderr, flush=True)

    def write(self, kind: str, value: Any) -> None:
        """A line of the file: a "row", or at the end what is "done", "failed" or "left_out"."""
        self._file.write(json.dumps({kind: value}, allow_nan=False) + "\n")
        self._file.flush()


def main(target: str, file: str, limit_s: str, document: str = "") -> None:
    """Call the function `target`, "package.module:function", with a `PartOutput`."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(float(limit_s) - _NOTICE_S, 0.1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Path(file).open("w", encoding="utf-8") as lines:
        output = PartOutput(lines, float(limit_s), Path(document) if document else None)
        module, _, function = target.partition(":")
        try:
            output.write("done", getattr(import_module(module), function)(output) or {})
        except ModuleNotFoundError as error:
            output.write("left_out", f"{error.name} is not installed")
        except MissingExtraError as error:
            output.write("left_out", str(error))
        except SshrDeployError as error:
            output.write("failed", str(error))
        except Exception as error:  # the other parts are worth their time all the same
            traceback.print_exc()
            output.write("failed", f"{type(error).__name__}: {first_line(error)}")
        finally:
            faulthandler.cancel_dump_traceback_later()


def _end_with_parent() -> None:
    """The parent holds the other end of stdin: when it is gone, so is this process's group."""
    os.read(0, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
