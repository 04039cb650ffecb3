"""The engines of a bundle as contenders, opened as every command opens them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import MissingExtraError, UsageError
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.candidate import Candidate, candidates_for
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kind import EngineKind
from sshr_deploy.runtime.engines.kinds import ENGINES, KINDS
from sshr_deploy.runtime.machine.gpus import find_gpus, why_no_gpu
from sshr_deploy.runtime.machine.threads import Threads, choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.runtime.settings import OpenOptions


def bundle_contenders(
    bundle: Bundle,
    *,
    engines: Collection[str] = (),
    precisions: Collection[Precision] = (),
    threads: int | None = None,
    allow_unqualified: bool = False,
    on_step: OnStep = tell_nobody,
) -> list[Contender]:
    """All engines and precisions of `bundle` that "auto" looks at here, its order.

    What this machine has not yet is built and compared with the reference when it is opened, and
    kept. Those that this machine cannot compute are among them: opening says why. See `left_out`
    for the others.

    Args:
        bundle: its graphs for patches, or for fields.
        engines: names of engines, which are then taken whatever "auto" does; empty for all.
        precisions: empty for all.
        threads: CPU threads of each; None chooses by width and cores.
        allow_unqualified: open what is not shown to equal the reference, too.
        on_step: told what is being built and compared.

    Raises:
        UsageError: no engine of a name, or the bundle has nothing for these.
    """
    if unknown := sorted(set(engines) - set(ENGINES)):
        raise UsageError(f"no engine named {unknown[0]!r}; choose among {', '.join(ENGINES)}")
    chosen = choose_threads(bundle.manifest.model.width, threads)
    found = []
    for candidate in _candidates(bundle, _taken(engines), precisions):
        options = OpenOptions(candidate.precision, allow_unqualified=allow_unqualified)
        opened = partial(_opened, bundle, candidate.kind.name, chosen, on_step)
        found.append(
            Contender(
                str(candidate),
                candidate.precision,
                candidate.tolerance,
                partial(opened, options),
                "",
                has_static_batches=candidate.kind.has_static_batches,
                on_gpu=candidate.kind.needs_gpu,
                open_one_stream=partial(opened, replace(options, streams=1)),
            )
        )
    if not found:
        asked = [*engines, *precisions]
        raise UsageError(
            f"{bundle.path} has nothing for {', '.join(asked) or 'an engine'} here; it has "
            f"{', '.join(dict.fromkeys(map(str, _candidates(bundle, KINDS, ()))))}"
        )
    return found


def left_out(bundle: Bundle, engines: Collection[str] = ()) -> str | None:
    """Says once which engines of `bundle` are no contenders, for want of a GPU or a package."""
    if engines:
        return None
    taken = _taken(engines)
    reasons: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind in taken or not bundle.artifacts(kind.graphs):
            continue
        missing = kind.package if not kind.is_considered else None
        reason = why_no_gpu() if missing is None else str(MissingExtraError(missing, kind.extra))
        reasons.setdefault(reason, []).append(kind.name)
    told = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return f"not measured: {'; '.join(told)}" if told else None


def patches_in(inputs: int, geometry: Geometry) -> int:
    """Patches of the size of so many inputs, as `OpenOptions.batch` counts them."""
    return math.ceil(inputs * geometry.side_px**2 / PATCH_PX**2)


def _taken(engines: Collection[str]) -> list[EngineKind]:
    if engines:
        return [kind for kind in KINDS if kind.name in engines]
    has_gpu = bool(find_gpus())
    return [kind for kind in KINDS if kind.is_considered and (has_gpu or not kind.needs_gpu)]


def _candidates(
    bundle: Bundle, kinds: Collection[EngineKind], precisions: Collection[Precision]
) -> Iterator[Candidate]:
    for kind in kinds:
        for precision in precisions or kind.precisions:
            yield from candidates_for(bundle, kind, precision)


def _opened(
    bundle: Bundle,
    engine: str,
    threads: Threads,
    on_step: OnStep,
    options: OpenOptions,
    batch: int,
) -> Session:
    use_threads(threads)
    options = replace(options, batch=patches_in(batch, bundle.geometry))
    return open_session(bundle, engine, options, on_step=on_step)
