"""A fresh process to its first result, timed: the child of `cold_start`.

    python -m sshr_deploy.benchmarks.latency.first_patch '{"bundle": "bundle", ...}'

Its argument is a `Start`, its output a line with `MARK` and a `FirstPatch`, both in JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports are among what is timed
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.runtime.contract import Session


MARK = "first patch: "
"""Before the times: libraries print lines of their own, also at the end."""


@dataclass(frozen=True)
class Start:
    """What a child is told."""

    bundle: str
    """Its folder."""
    engine: str
    precision: str
    batch: int
    """Patches of the largest call that the engine is opened for."""
    threads: int | None
    allow_unqualified: bool
    started: float
    """When the process was started, by `time.monotonic`, which all processes of a machine share."""
    fields: bool = False
    """Compute a field in place of a patch."""
    judges: bool = False
    """Compare the masks with the reference afterwards."""


@dataclass(frozen=True)
class FirstPatch:
    """Seconds that follow one another, from the start of the process."""

    start_s: float
    """Python, and the imports of this package."""
    load_s: float
    """The bundle is read, and every file checked."""
    open_s: float
    """The engine's library is imported, and the engine made ready."""
    first_patch_s: float
    """One patch, to its label map; or one field, to its CAMs."""
    built: tuple[str, ...]
    """What had to be built, or compared with the reference, while it was opened; empty where all of
    that was there."""
    agreement: dict[str, Any] | None = None
    """An `Agreement` as JSON; None where the masks were not compared."""


def first_patch(start: Start) -> FirstPatch:
    """Open an engine and compute one patch, or one field.

    Raises:
        SshrDeployError: it cannot be opened here, or fails.
    """
    import numpy as np

    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.precision import Precision
    from sshr_deploy.runtime.engines.choosing import open_session
    from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
    from sshr_deploy.runtime.masks import mask_rule
    from sshr_deploy.runtime.settings import OpenOptions

    built: list[str] = []
    moments = [start.started, time.monotonic()]
    bundle = load_bundle(Path(start.bundle))
    if start.fields:
        bundle = bundle.on_fields()
    moments.append(time.monotonic())
    use_threads(choose_threads(bundle.manifest.model.width, start.threads))
    options = OpenOptions(
        Precision(start.precision), start.batch, allow_unqualified=start.allow_unqualified
    )
    with open_session(bundle, start.engine, options, on_step=built.append) as session:
        moments.append(time.monotonic())
        blank = np.zeros((1, *bundle.geometry.input_shape()), np.uint8)
        rule = None if start.fields else mask_rule(bundle.manifest.profile)
        for _ in session.stream([(None, blank)], rule):
            moments.append(time.monotonic())
        agreement = _agreement(session, bundle) if start.judges else None
    start_s, load_s, open_s, first_s = (after - before for before, after in pairwise(moments))
    return FirstPatch(start_s, load_s, open_s, first_s, tuple(built), agreement)


def _agreement(session: Session, bundle: Bundle) -> dict[str, Any]:
    from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders
    from sshr_deploy.benchmarks.contenders.judging import judged
    from sshr_deploy.precision import Precision

    engine, precision = session.info.engine, Precision(session.info.precision)
    (contender,) = bundle_contenders(bundle, engines=(engine,), precisions=(precision,))
    return judged(session, contender, bundle).model_dump(mode="json")


def main() -> None:
    """Print what was timed; an error of this package is one line on stderr."""
    from sshr_deploy.errors import SshrDeployError

    try:
        found = first_patch(Start(**json.loads(sys.argv[1])))
    except SshrDeployError as error:
        sys.exit(str(error))
    print(MARK + json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
