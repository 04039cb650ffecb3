"""Builds the documents that a run leaves, from what it did: `results` has their types."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from sshr_deploy.bundle import Bundle
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.processor import library_versions
from sshr_deploy.runtime.pipeline.image_work import Prediction
from sshr_deploy.runtime.pipeline.sessions import NO_FIELDS, Sessions, choose_mode
from sshr_deploy.runtime.results.findings import (
    SCHEMA_VERSION,
    BundleFacts,
    InputResult,
    Key,
    Kind,
    PatchClass,
    PatchResult,
    PatchSummary,
    Provenance,
    SlideClass,
    SlideResult,
    SlideSummary,
    Source,
    Summary,
)
from sshr_deploy.runtime.results.records import (
    Counts,
    DoneInput,
    FailedInput,
    Machine,
    RunEffort,
    RunRecord,
)
from sshr_deploy.runtime.settings import InferSettings, LargeImages, Mode
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.version import __version__

_LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "pillow",
)


_OF_ENGINE = ("engine", "library", "device", "qualified")
"""What a key says of it."""

IMAGE_MPP = "(images state none)"
"""Why the pixel size of a PNG or JPEG is the user's; its dots per inch are those of a screen."""

Wording = Callable[[str], str]
"""Names the settings in a message."""


@dataclass(frozen=True)
class Context:
    """Model, engine and settings that all results of a run share."""

    bundle: Bundle
    sessions: Sessions
    settings: InferSettings
    """With a mode."""
    wording: Wording = str
    """Of messages in documents; the command line names its options there."""
    notes: tuple[str, ...] = ()
    """For readers of the results, beside those of the engine."""

    @classmethod
    def of(
        cls, bundle: Bundle, sessions: Sessions, settings: InferSettings, wording: Wording = str
    ) -> Context:
        """With the mode that the settings and the bundle leave.

        Raises:
            BundleError: the mode is seamless and the bundle has no graphs for it.
            UsageError: a class that is asked for is none of the model's.
        """
        settings.outputs.check_classes(c.name for c in bundle.manifest.profile.classes)
        mode = choose_mode(settings.mode, bundle)
        notes = (NO_FIELDS,) if settings.mode is None and mode is Mode.REFERENCE else ()
        return cls(bundle, sessions, replace(settings, mode=mode), wording, notes)

    @property
    def mode(self) -> Mode:
        """Of the settings."""
        assert self.settings.mode is not None
        return self.settings.mode

    def engine(self, kind: Kind) -> SessionInfo:
        """Engine of inputs of a kind; a session may find more to note while it runs."""
        return self._noted(self.sessions.info(kind, self.mode))

    def engine_of(self, result: SlideResult | PatchResult | Summary) -> SessionInfo:
        """Engine of an input that has this result, or had it and is done again.

        An image that is not cut is a patch in every mode.
        """
        kind = result.input.kind if isinstance(result, Summary) else kind_of_result(result)
        is_cut = kind == "slide" or (
            not isinstance(result, SlideResult | SlideSummary)
            and result.large is not None
            and self.settings.large is LargeImages.TILES
        )
        sessions = self.sessions
        return self._noted((sessions.of_slides(self.mode) if is_cut else sessions.patches).info)

    def _noted(self, info: SessionInfo) -> SessionInfo:
        return replace(info, notes=(*info.notes, *map(self.wording, self.notes)))

    @property
    def profile(self) -> Profile:
        """The bundle's profile."""
        return self.bundle.manifest.profile

    def key(
        self, fingerprint: str, place: PurePath, result: SlideResult | PatchResult | Summary
    ) -> Key:
        """Identity of a result: the same key means that computing it again would change nothing.

        The pixel size given for an input at `place` counts only where it was used, or would be
        now, and `large` only for images that are large.
        """
        given = self.settings.mpp_of(place)
        key = self._key(fingerprint, self.engine_of(result))
        source = None if result.mpp is None else result.mpp.source
        if source is None or source.endswith(IMAGE_MPP):
            key["mpp_um"] = given.um
        elif source != "file" or given.force:
            key |= {"mpp_um": given.um, "force_mpp": given.force}
        if isinstance(result, SlideResult | SlideSummary):
            key["regions"] = self.settings.outputs.regions_key
        if not isinstance(result, SlideResult) and result.large is not None:
            key["large"] = self.settings.large.value
        return key

    def units_key(self, fingerprint: str, mpp: Mpp) -> str:
        """Identity of what the network says of a slide's tiles or fields."""
        session = self.sessions.of_slides(self.mode)
        parts = {"mpp_um": [mpp.x_um, mpp.y_um], "geometry": asdict(session.geometry)}
        return json.dumps({**self._key(fingerprint, session.info), **parts})

    def _key(self, fingerprint: str, engine: SessionInfo) -> Key:
        """What changes every result; `mpp_um` and `large` change only some."""
        return {
            "input_fingerprint": fingerprint,
            "bundle_manifest_sha256": self.bundle.manifest_sha256,
            "sshr_deploy": __version__,
            "engine": f"{engine.engine} {engine.precision}",
            "library": engine.library,
            "device": engine.device,
            "qualified": engine.unqualified is None,
            "mode": self.mode.value,
            "tissue": self.settings.tissue.value,
        }

    def provenance(self, engine: SessionInfo) -> Provenance:
        """Engine, bundle and version, for each document."""
        manifest = self.bundle.manifest
        return Provenance(
            sshr_deploy=__version__,
            profile=manifest.profile.name,
            relabelled_from=manifest.relabelled_from,
            engine=engine,
            bundle=BundleFacts(
                path=str(self.bundle.path),
                manifest_sha256=self.bundle.manifest_sha256,
                files_sha256={name: entry.sha256 for name, entry in manifest.files.items()},
                checkpoint_sha256=manifest.model.checkpoint_sha256,
                model_metadata=manifest.model.metadata,
                adaptation=manifest.model.adaptation,
            ),
        )


def summary_of(
    result: SlideResult | PatchResult,
    context: Context,
    *,
    path: Path,
    relative: Path,
    fingerprint: str,
) -> SlideSummary | PatchSummary:
    """Content of `summary.json`: a result, which file it is of, and all that decided it."""
    kind = kind_of_result(result)
    parts = {
        "schema_version": SCHEMA_VERSION,
        "input": Source(path=str(path.absolute()), kind=kind),
        "finished_utc": now_utc(),
        "folder": relative.as_posix(),
        **dict(result),
        **dict(context.provenance(context.engine_of(result))),
        "key": context.key(fingerprint, relative, result),
    }
    return SlideSummary(**parts) if kind == "slide" else PatchSummary(**parts)


def run_record(
    context: Context,
    results: Sequence[InputResult],
    *,
    source: Path,
    left_out: Mapping[str, int],
    started_utc: str,
    interrupted: bool,
    stopped_by: str | None,
    effort: RunEffort | None,
    kind: Kind,
) -> RunRecord:
    """The record of a run: settings, versions, and how each input ended.

    Its engine is that of inputs of `kind`.
    """
    statuses = [r.status for r in results]
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        source=str(source.absolute()),
        started_utc=started_utc,
        finished_utc=now_utc(),
        interrupted=interrupted,
        stopped_by=stopped_by,
        counts=Counts(
            done=statuses.count("done"),
            skipped=statuses.count("skipped"),
            failed=statuses.count("failed"),
        ),
        left_out=dict(left_out),
        **dict(context.provenance(context.engine(kind))),
        settings=context.settings,
        machine=Machine(platform=platform.platform(), python=platform.python_version()),
        libraries=library_versions(_LIBRARIES),
        effort=effort,
        inputs=tuple(_ended(r) for r in results),
        failed_earlier=(),
    )


def without_engine(key: Key) -> Key:
    """What a key says but for the engine, which each machine proves for itself."""
    return {name: value for name, value in key.items() if name not in _OF_ENGINE}


def kind_of_result(result: SlideResult | PatchResult) -> Kind:
    """Kind of the input that a result is of."""
    return "slide" if isinstance(result, SlideResult) else "patch"


def slide_classes(profile: Profile, counts: Sequence[int], mpp_um: float) -> tuple[SlideClass, ...]:
    """One entry a class; `counts` are the pixels of labels 0 to N, of `mpp_um` each."""
    total = sum(counts[: profile.num_classes])
    return tuple(
        SlideClass(
            label=label,
            name=tissue.name,
            pixels=counts[label],
            share=_share(counts[label], total),
            area_mm2=_area_mm2(counts[label], mpp_um),
        )
        for label, tissue in enumerate(profile.classes)
    )


def patch_classes(
    profile: Profile, counts: Sequence[int], mpp_um: float | None, prediction: Prediction
) -> tuple[PatchClass, ...]:
    """The same for an image, with what the network says of each class."""
    total = sum(counts[: profile.num_classes])
    prob, on = prediction.prob.tolist(), prediction.on.tolist()
    return tuple(
        PatchClass(
            label=label,
            name=tissue.name,
            pixels=counts[label],
            share=_share(counts[label], total),
            area_mm2=None if mpp_um is None else _area_mm2(counts[label], mpp_um),
            probability=prob[label],
            on=on[label],
        )
        for label, tissue in enumerate(profile.classes)
    )


def _share(pixels: int, total: int) -> float:
    return pixels / total if total else 0.0


def _area_mm2(pixels: int, mpp_um: float) -> float:
    return round(pixels * (mpp_um / 1000) ** 2, 9)


def _ended(result: InputResult) -> DoneInput | FailedInput:
    path, summary = str(result.path.absolute()), result.summary
    if summary is None:
        return FailedInput(path=path, kind=result.kind, status="failed", reason=result.reason)
    return DoneInput(
        path=path,
        kind=summary.input.kind,
        status="skipped" if result.status == "skipped" else "done",
        reason="",
        folder=summary.folder,
        mpp=summary.mpp,
        tiles=summary.tiles,
        seconds=summary.seconds,
    )
