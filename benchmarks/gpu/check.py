"""Everything that needs an NVIDIA GPU, in one run of at most eight minutes (`make gpu-check`).

    PYTHONPATH=. python3 -m sshr_deploy.benchmarks.gpu.check [--parts network,kernels]

Needs PyTorch with CUDA, and installs nothing; a part whose packages are missing is left out by
name. Each part runs in a process of its own with a deadline; the rows that it had measured when it
crashed or was killed are kept. Ends in a table and `gpu-check-<device>.json`, which is written anew
after each part. Exit code 1: a part failed, or a row of one. Each measurement has a check of its
own and reports no time of what misses it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import check_writable, write_json
from sshr_deploy.benchmarks.gpu.parts import DEVICE, PARTS
from sshr_deploy.benchmarks.gpu.process import CheckPart, Outcome, run_part
from sshr_deploy.benchmarks.gpu.table import table
from sshr_deploy.errors import SshrDeployError, UsageError
from sshr_deploy.runtime.machine.clock import now_utc

DEADLINE_S = 470.0
"""For all parts together."""
INTERRUPTED = 130
"""Exit code, as of a program that Ctrl-C ended."""


def check(
    out: Path, parts: Sequence[CheckPart] = PARTS, deadline_s: float = DEADLINE_S
) -> CheckReport:
    """Run the parts; one that fails is recorded with its reason, and the others go on.

    Ctrl-C and SIGTERM end it after the part that runs, whose rows so far are kept.

    Raises:
        UsageError: there is no GPU to check.
        OutputError: the JSON file cannot be written; told before anything is measured.
    """
    end = time.monotonic() + deadline_s
    with _sigterm_as_ctrl_c():
        device = run_part(DEVICE, min(DEVICE.limit_s, deadline_s))
        if device.state != "done":
            raise UsageError(f"no GPU to check: {device.reason}")
        report = CheckReport(out, device.figures)
        check_writable(report.file)
        for index, part in enumerate(parts):
            if part.needs_bundle and not os.environ.get("BUNDLE"):
                report.leave_out(part, "no bundle to measure; name one: BUNDLE=folder")
                continue
            left_s = end - time.monotonic()
            if left_s < part.least_s:
                report.leave_out(part, f"out of time: {left_s:.0f} s were left of {deadline_s:g}")
                continue
            document = report.document_of(part)
            document.unlink(missing_ok=True)
            outcome = run_part(part, min(part.limit_s, left_s), document)
            report.add(part, outcome)
            if outcome.state == "interrupted":
                report.interrupted = True
                for other in parts[index + 1 :]:
                    report.leave_out(other, "interrupted")
                break
        return report


class CheckReport:
    """The findings so far, which are always on the disk too."""

    def __init__(self, out: Path, environment: dict[str, Any]) -> None:
        self.file = out / _file_name(environment["device"])
        self.interrupted = False
        self.content: dict[str, Any] = {
            "benchmark": "gpu-check",
            "measured_utc": now_utc(),
            "environment": environment,
            "device": environment["device"],
            "failed": {},
            "left_out": {},
            "seconds": {},
            "parts": {},
            "documents": {},
            "output": {},
        }

    def document_of(self, part: CheckPart) -> Path:
        """Where a part keeps its document, if it is a benchmark of the common form."""
        return self.file.with_name(f"{self.file.stem}-{part.name}.json")

    def add(self, part: CheckPart, outcome: Outcome) -> None:
        """Record what a part left, and write the file."""
        content = self.content
        content["seconds"][part.name] = outcome.seconds
        if outcome.rows or outcome.figures:
            cut = {} if outcome.state == "done" else {"partial": outcome.reason}
            content["parts"][part.name] = outcome.figures | {"rows": outcome.rows} | cut
        if self.document_of(part).exists():
            content["documents"][part.name] = self.document_of(part).name
        if outcome.state == "left_out":
            content["left_out"][part.name] = outcome.reason
        elif outcome.state != "done":
            content["failed"][part.name] = outcome.reason
            content["output"][part.name] = outcome.output
        for row in outcome.rows:
            if "failed" in row:
                names = ("name", "form", "batch", "shape", "config", "kernel", "test")
                what = ", ".join(f"{row[name]}" for name in names if name in row)
                content["failed"][f"{part.name}, {what}"] = row["failed"]
        write_json(self.file, content)

    def leave_out(self, part: CheckPart, reason: str) -> None:
        """Record that a part did not run, and write the file."""
        self.content["left_out"][part.name] = reason
        write_json(self.file, self.content)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _file_name(device: str) -> str:
    return f"gpu-check-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def _chosen(names: str) -> list[CheckPart]:
    """The parts that a list with commas names, in their own order.

    Raises:
        UsageError: a name is of no part.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [part.name for part in PARTS]
    for name in wanted:
        if not any(_is_named(part, name) for part in PARTS):
            raise UsageError(f"no part is called {name!r}; choose of {', '.join(known)}")
    return [part for part in PARTS if any(_is_named(part, name) for name in wanted)]


def _is_named(part: CheckPart, name: str) -> bool:
    return part.name == name or part.name.startswith(f"{name}-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print the table, and say where the JSON file is."""
    options = _options(arguments)
    try:
        parts = _chosen(options.parts) if options.parts else PARTS
        missing = _missing()
        if missing:
            raise UsageError(missing)
        report = check(options.out, parts, options.deadline)
    except UsageError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    except SshrDeployError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gpu-check: interrupted; what was finished is in the JSON file", file=sys.stderr)
        return INTERRUPTED
    print(*table(report.content), report.file, sep="\n")
    if report.interrupted:
        return INTERRUPTED
    return 1 if report.content["failed"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(os.environ.get("OUT") or "demo/out/gpu")
    parser.add_argument(
        "--out", type=Path, default=default, help="folder of the JSON file (default: $OUT, if set)"
    )
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument(
        "--parts",
        help=f"the parts to run, with commas between; network stands for all that begin so. "
        f"All: {names}",
    )
    parser.add_argument(
        "--deadline",
        type=_seconds,
        default=DEADLINE_S,
        help="seconds for all parts together (default: %(default)g)",
    )
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError("it must be from 1 to 86400 s")
    return value


def _missing() -> str:
    """Why the check cannot run here, with the fix; empty where it can."""
    if os.environ.get("TRITON_INTERPRET"):
        return "TRITON_INTERPRET is set, which keeps kernels off the GPU; unset it"
    if find_spec("torch") is None:
        return (
            f"{sys.executable} has no PyTorch; "
            "name a Python that has it: make gpu-check PYTHON=/path/to/python3"
        )
    return ""


if __name__ == "__main__":
    sys.exit(main())
