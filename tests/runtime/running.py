"""What tests of whole runs share: a runner with a real engine, and a reporter that remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openslide

from sshr_deploy.bundle import Bundle
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.run import Run, RunResult
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.pipeline.terms import terms_of
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.settings import InferSettings, Mode


@dataclass
class Recorder:
    """A reporter that remembers."""

    tiles: int = 0
    announced: int = 0
    finished: list[InputResult] = field(default_factory=list)
    taken: list[tuple[Path, str]] = field(default_factory=list)
    interrupt_after: int | None = None

    def run_started(self, inputs: int) -> None:
        self.inputs = inputs

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        self.announced += tiles

    def taken_over(self, path: Path, holder: str) -> None:
        self.taken.append((path, holder))

    def tiles_done(self, path: Path, tiles: int) -> None:
        self.tiles += tiles

    def input_finished(self, result: InputResult) -> None:
        self.finished.append(result)
        if self.interrupt_after == len(self.finished):
            raise KeyboardInterrupt


def context_of(bundle: Bundle, session: Session, **settings: Any) -> Context:
    """Of runs with one session: of patches for reference mode, of fields for seamless."""
    mode = Mode.REFERENCE if session.geometry.is_patch else Mode.SEAMLESS
    return Context(bundle, Sessions.of(bundle, session), InferSettings(mode, **settings))


@dataclass
class Runner:
    bundle: Bundle
    session: Session

    def __call__(
        self,
        source: Path,
        out: Path,
        *,
        reporter: Recorder | None = None,
        shares: bool = False,
        **settings: Any,
    ) -> RunResult:
        context = context_of(self.bundle, self.session, **settings)
        bundle = self.bundle
        terms = terms_of(bundle.manifest, bundle.manifest_sha256, context.settings)
        with prepare_run(source, out, context.settings, terms if shares else None) as work:
            run = Run(work, context, reporter or Recorder())
            for _ in run:
                pass
        return run.outcome


def read_summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary


def patch_folder(folder: Path, demo_slide: Path, count: int = 5) -> Path:
    folder.mkdir()
    with openslide.OpenSlide(demo_slide) as slide:
        for i in range(count):
            crop = slide.read_region((700, 300 * i), 0, (200 + 30 * i, 224)).convert("RGB")
            crop.save(folder / f"[{i}] patch.png")
    return folder
