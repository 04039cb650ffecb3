"""A bundle open in the workers of a cluster, for runs as `api.Model` is in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.cluster.connecting import connected, find_places
from sshr_deploy.cluster.messages import Order
from sshr_deploy.cluster.workforce import RayWorkforce
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.contract import Session, SessionInfo
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.threads import choose_threads, fed_threads
from sshr_deploy.runtime.operation.events import Events
from sshr_deploy.runtime.pipeline.documents import Context, Wording
from sshr_deploy.runtime.pipeline.processing import Workforce
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.run_lock import RunLock
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.work import Work
from sshr_deploy.runtime.results.findings import Kind
from sshr_deploy.runtime.settings import InferSettings, Mode
from sshr_deploy.version import __version__


class RayModel:
    """What a command needs of a model, of one whose engines are in workers; see `open_workers`."""

    def __init__(self, bundle: Bundle, workforce: RayWorkforce) -> None:
        self.bundle, self.workers = bundle, workforce
        self._sessions = _RemoteSessions(bundle, workforce)

    @property
    def info(self) -> SessionInfo:
        """The engine of the first worker; its notes name the engines of others."""
        return self._sessions.info("slide", Mode.SEAMLESS)

    @property
    def settings(self) -> InferSettings:
        """Those of the first worker."""
        return self._sessions.settings

    def context(self, settings: InferSettings, wording: Wording = str) -> Context:
        """See `Model.context`."""
        return Context.of(self.bundle, self._sessions, settings, wording)

    def start(
        self,
        work: Work,
        settings: InferSettings,
        reporter: Reporter,
        wording: Wording = str,
        stop: StopRequest | None = None,
    ) -> Run:
        """See `Model.start`."""
        self.workers.listen(reporter, stop)
        return Run(work, self.context(settings, wording), reporter, self.workers)

    def workforce(
        self,
        out: Path,  # noqa: ARG002  (the workers know it)
        lock: RunLock,  # noqa: ARG002
        context: Context,  # noqa: ARG002
        reporter: Reporter,
        stop: StopRequest,
    ) -> Workforce:
        """See `Model.workforce`."""
        self.workers.listen(reporter, stop)
        return self.workers


class _RemoteSessions(Sessions):
    """What can be told of the engines in workers, which are out of reach here."""

    def __init__(self, bundle: Bundle, workforce: RayWorkforce) -> None:
        super().__init__(bundle, _out_of_reach)
        self._workforce = workforce
        first = workforce.ready()[0]
        self._first, self.settings = first.info, first.settings

    def info(self, kind: Kind, mode: Mode) -> SessionInfo:  # noqa: ARG002
        """See `Sessions`; of the first worker, with notes of all and of how others differ."""
        notes = dict.fromkeys(self._first.notes)
        for info in self._workforce.infos():
            notes |= dict.fromkeys(info.notes)
            if _engine(info) != _engine(self._first):
                notes[f"other workers computed with {_engine(info)}"] = None
        return replace(self._first, notes=tuple(notes))


@contextmanager
def open_workers(
    spec: RunSpec,
    out: Path,
    sources: Sequence[Path],
    address: str,
    cores: int | None,
    *,
    say: Callable[[str], None],
    wording: Wording = str,
    for_slides: bool = True,
    events: Events | None = None,
) -> Iterator[RayModel]:
    """Open a bundle in workers of a Ray cluster, one for each GPU or for each so many cores.

    Args:
        spec: of the bundle, the engines and the settings.
        out: folder of the results, which is there; all machines see it at the same path.
        sources: slides or folders of them; the same.
        address: of the cluster; see `connected`.
        cores: of a worker without a GPU; None for as many as the network has work for.
        say: told of steps, and of workers that are lost.
        wording: of messages in documents; a function that workers can import.
        for_slides: begin with the engine of slides.
        events: told of workers that are lost.

    Raises:
        See `connected`, `find_places` and `RayWorkforce`.
    """
    bundle = load_bundle(spec.bundle)
    kind, width = find_kind(spec.engine), bundle.manifest.model.width
    spec = replace(spec, bundle=spec.bundle.absolute(), threads=_threads(spec, width))
    with connected(address) as ray, _sign(out.absolute()) as sign:
        places = find_places(
            ray, on_gpus=kind is None or kind.needs_gpu, cores=cores or fed_threads(width)
        )
        order = Order(
            spec=spec,
            out=out.absolute(),
            manifest_sha256=bundle.manifest_sha256,
            for_slides=for_slides,
            processes=1,
            must_see=(sign, *(source.absolute() for source in sources)),
            wording=wording,
            version=__version__,
        )
        with RayWorkforce(ray, places, order, bundle, say, events or Events()) as workforce:
            yield RayModel(bundle, workforce)


def _threads(spec: RunSpec, width: int) -> int | None:
    """Threads that the user wishes for, by option or by OMP_NUM_THREADS; else None."""
    chosen = choose_threads(width, spec.threads)
    return None if chosen.chosen_by.startswith("width") else chosen.count


@contextmanager
def _sign(out: Path) -> Iterator[Path]:
    """A file that only a machine sees to which `out` is the same folder."""
    try:
        with NamedTemporaryFile(prefix=".cluster-", dir=out) as file:
            yield Path(file.name)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another") from error


def _out_of_reach(_: Bundle) -> Session:
    raise AssertionError("engines are in the workers")


def _engine(info: SessionInfo) -> str:
    return f"{info.engine} {info.precision} on {info.device}, {info.library}"
