"""The Python API: a bundle as a model, for arrays, slides and whole folders.

    import sshr_deploy as sshr
    with sshr.load("bundle") as model:                # engine="auto"
        r = model(rgb)                                # .mask .prob .classes
        s = model.slide("x.svs", out="results")       # .mask .areas_mm2 .regions .summary
        for s in model.run("slides/", out="results"):
            print(s.path, s.status)

More examples are in `docs/python-api.md`. Errors are those of `sshr_deploy.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.closing import Closing
from sshr_deploy.errors import UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import CamBatch, Session, SessionInfo
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import AUTO, default_batch
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.pipeline.documents import Context, Wording
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.pipeline.opened import Result, Segmentation
from sshr_deploy.runtime.pipeline.patch import check_pixels
from sshr_deploy.runtime.pipeline.processing import Processing
from sshr_deploy.runtime.pipeline.reporting import Options, Reporter, TileCounter, no_tiles
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.run_lock import RunLock
from sshr_deploy.runtime.pipeline.sessions import Sessions, choose_mode
from sshr_deploy.runtime.pipeline.sources import Sources
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.terms import terms_of
from sshr_deploy.runtime.pipeline.work import Work, prepare_run
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.runtime.settings import InferSettings, LargeImages, Mode, OpenOptions

AnyPath = str | Path
OnOpen = Callable[[SessionInfo], SessionInfo]


class Model(Closing):
    """A bundle with a proven engine, for one thread at a time; a context manager, see `load`."""

    def __init__(
        self,
        spec: RunSpec,
        bundle: Bundle | None,
        on_step: OnStep,
        *,
        on_open: OnOpen = lambda info: info,
        for_slides: bool = False,
        processes: int = 1,
    ) -> None:
        """Open one engine; the one for fields and the one for patches follow as they are needed.

        Args:
            spec: of the bundle, the engine and the settings.
            bundle: the bundle if it is there already.
            on_step: told what is built.
            on_open: given the facts of each engine that is opened; says how they stand in
                documents.
            for_slides: begin with the engine that slides need in the mode of the settings.
            processes: that share this machine's cores.
        """
        self.spec, self.bundle = spec, bundle or load_bundle(spec.bundle)
        width = self.bundle.manifest.model.width
        use_threads(choose_threads(width, spec.threads, processes=processes))
        self._on_step, self._on_open = on_step, on_open
        mode = choose_mode(spec.settings.mode, self.bundle)
        self.sessions = Sessions(self.bundle, self._open)
        self._first = self.sessions.of_slides(mode) if for_slides else self.sessions.patches
        self.classes = self.bundle.manifest.profile.class_names

    @property
    def session(self) -> Session:
        """The network of patches."""
        return self.sessions.patches

    @property
    def info(self) -> SessionInfo:
        """Engine, precision, library and device, and why faster engines were not taken."""
        return self._first.info

    @property
    def settings(self) -> InferSettings:
        """Settings of a run, with as many patches in a call as suit the engine."""
        chosen = self.spec.options.batch
        return replace(self.spec.settings, batch=chosen or default_batch(self.info.engine))

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        *,
        mpp: float | None = None,
        large: str = "tiles",
        mode: str | None = None,
    ) -> Segmentation:
        """Segment an image, uint8 [H, W, 3] of any size, with pixels of `mpp` um, in memory.

        Raises:
            InputError, UsageError: unusable pixels, or `mpp` (see `check_pixels`).
            BundleError: `mode` is seamless and the bundle has no graphs for it.
            SessionError: the engine fails.
        """
        profile, batch = self.bundle.manifest.profile, self.settings.batch
        images, cut = [(None, check_pixels(rgb, mpp, profile))], LargeImages.of(large)
        wish = self.spec.settings.mode if mode is None else Mode.of(mode)
        seamless = choose_mode(wish, self.bundle) is Mode.SEAMLESS
        fields = (lambda: self.sessions.fields) if seamless else None
        ((_, found),) = predict_images(
            images, self.session, profile, cut, batch, fields=fields, mpp_um=mpp
        )
        return Segmentation(found.mask, found.prob, self.classes)

    def cams(self, patches: NDArray[np.uint8]) -> CamBatch:
        """CAMs of three levels, float32 [B, N, 28, 28], and probabilities [B, N].

        Raises:
            SessionError: the patches are not uint8 [B, 224, 224, 3], or the engine fails.
        """
        return self.session.infer(patches)

    def slide(self, path: AnyPath, out: AnyPath, **options: Unpack[Options]) -> Result:
        """Segment one slide or image file: as `run`, but where that fails the error is raised."""
        if Path(path).is_dir():
            raise UsageError(f"{path} is a folder; Model.run does all that it holds")
        (result,) = self.run(path, out, **options)
        result.check()
        return result

    def run(
        self, source: AnyPath | Sequence[AnyPath], out: AnyPath, **options: Unpack[Options]
    ) -> Iterator[Result]:
        """Segment slides, images or folders of them into `out`, as the results are asked for.

        They come as inputs end, failed ones too; those of an earlier run are not done again.

        Raises:
            UsageError: nothing to do at `source`, an impossible option, or an unusable `out`.
            SourceError: several sources, and some cannot be used (see `Sources`).
            BundleError: `mode` is seamless and the bundle has no graphs for it.
            OutputError, SessionError: the disk or the engine fails; finished results are kept.
        """
        watcher = TileCounter(options.pop("on_tiles", no_tiles))
        settings, folder = self.settings.changed(options), Path(out).absolute()
        given = (source,) if isinstance(source, str | Path) else source
        sources = Sources(tuple(map(Path, given)))
        terms = terms_of(self.bundle.manifest, self.bundle.manifest_sha256, settings)
        with prepare_run(sources, Path(out), settings, terms) as work:
            run = self.start(work, settings, watcher)
            with closing(iter(run)) as inputs:
                yield from (Result(ended, folder) for ended in inputs)
        if run.outcome.stopped_by is not None:
            raise run.outcome.stopped_by

    def start(
        self,
        work: Work,
        settings: InferSettings,
        reporter: Reporter,
        wording: Wording = str,
        stop: StopRequest | None = None,
    ) -> Run:
        """A run that is done by iterating over it, for those who watch it themselves.

        `stop` may end it early: it is left resumable, and KeyboardInterrupt is raised.

        Raises:
            BundleError: the mode is seamless and the bundle has no graphs for it.
        """
        return Run(work, self.context(settings, wording), reporter, stop=stop)

    def workforce(
        self, out: Path, lock: RunLock, context: Context, reporter: Reporter, stop: StopRequest
    ) -> Processing:
        """What does inputs with this model as they come; results go below `out`."""
        return Processing(out, lock, context, reporter, stop)

    def context(self, settings: InferSettings, wording: Wording = str) -> Context:
        """What all results share that this model makes with `settings`.

        Raises:
            BundleError: the mode is seamless and the bundle has no graphs for it.
        """
        return Context.of(self.bundle, self.sessions, settings, wording)

    def _open(self, bundle: Bundle) -> Session:
        spec = self.spec
        session = open_session(bundle, spec.engine, spec.options, on_step=self._on_step)
        session.info = self._on_open(session.info)
        return session

    def close(self) -> None:
        """Free the engines; safe to call twice."""
        self.sessions.close()


def load(
    bundle: AnyPath,
    engine: str = AUTO,
    *,
    precision: str | None = None,
    batch: int | None = None,
    threads: int | None = None,
    streams: int | None = None,
    no_build: bool = False,
    allow_unqualified: bool = False,
    on_step: OnStep = tell_nobody,
) -> Model:
    """Open a bundle with an engine, "auto" for the fastest that is proven here.

    What this machine has not yet is built and compared with the reference; `on_step` is told. The
    other arguments are the options of `sshr-deploy infer`; `threads` is for the whole process.
    `streams` is chosen for slides, whose batches follow one another: a narrow network computes a
    thread a call. Give `streams=1` for single patches, each of which then has all threads.

    Raises:
        BundleError: not a bundle, or an altered one.
        UsageError: no such engine or precision, or the bundle has nothing for it.
        SessionError, MissingExtraError: the engine does not work here or is not proven.
    """
    wanted = None if precision is None else Precision.of(precision)
    options = OpenOptions(wanted, batch, not no_build, allow_unqualified, streams)
    return Model(RunSpec(Path(bundle), InferSettings(), engine, options, threads), None, on_step)
