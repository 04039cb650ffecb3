"""Options that `infer` and `watch` have in common, and what they say to the library."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.cli.engine import RayChoice
from sshr_deploy.cli.operating import (
    LogJsonOption,
    OnDoneOption,
    OnDoneUrlOption,
    Operating,
    ServeOption,
    operating,
)
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    AnyStainOption,
    BatchOption,
    EngineOption,
    ExcludeOption,
    ForceMppOption,
    IncludeOption,
    MaxSlideMinutesOption,
    ModelOption,
    ModeOption,
    MppOption,
    MppTableOption,
    NoBuildOption,
    PrecisionOption,
    QuietOption,
    RayCoresOption,
    RayOption,
    ReadersOption,
    StreamsOption,
    ThreadsOption,
    TissueOption,
)
from sshr_deploy.cli.output_options import (
    ClassesOption,
    DicomSegOption,
    MinRegionOption,
    OmeZarrOption,
    ProbabilitiesOption,
    SimplifyOption,
)
from sshr_deploy.runtime.engines.kinds import AUTO
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pixel_sizes import read_mpp_table
from sshr_deploy.runtime.settings import InferSettings, LargeImages, OpenOptions, TissueChoice

if TYPE_CHECKING:
    from sshr_deploy.runtime.operation.events import Events
    from sshr_deploy.runtime.pipeline.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Fields are options; see `commands.command`."""

    model: ModelOption
    include: IncludeOption = None
    exclude: ExcludeOption = None
    mode: ModeOption = None
    mpp: MppOption = None
    mpp_table: MppTableOption = None
    force_mpp: ForceMppOption = False
    tissue: TissueOption = TissueChoice.AUTO
    any_stain: AnyStainOption = False
    max_slide_minutes: MaxSlideMinutesOption = None
    simplify_um: SimplifyOption = Outputs.simplify_um
    min_region_um2: MinRegionOption = Outputs.min_region_um2
    classes: ClassesOption = None
    dicom_seg: DicomSegOption = False
    ome_zarr: OmeZarrOption = False
    probabilities: ProbabilitiesOption = False
    engine: EngineOption = AUTO
    precision: PrecisionOption = None
    batch: BatchOption = None
    threads: ThreadsOption = None
    streams: StreamsOption = None
    readers: ReadersOption = None
    no_build: NoBuildOption = False
    allow_unqualified: AllowUnqualifiedOption = False
    ray: RayOption = None
    ray_cores: RayCoresOption = None
    log_json: LogJsonOption = None
    serve: ServeOption = None
    on_done: OnDoneOption = None
    on_done_url: OnDoneUrlOption = None
    quiet: QuietOption = False

    def spec(self, *, large: LargeImages = LargeImages.TILES, overwrite: bool = False) -> RunSpec:
        """All that decides the run but its inputs.

        Raises:
            UsageError: options do not fit.
            SourceError: the table of pixel sizes cannot be used.
        """
        from sshr_deploy.runtime.pipeline.spec import RunSpec

        settings = InferSettings(
            mode=self.mode,
            mpp_um=self.mpp,
            force_mpp=self.force_mpp,
            tissue=self.tissue,
            overwrite=overwrite,
            large=large,
            readers=self.readers,
            any_stain=self.any_stain,
            max_slide_minutes=self.max_slide_minutes,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            mpp_table=None if self.mpp_table is None else read_mpp_table(self.mpp_table),
            outputs=self._outputs(),
        )
        options = OpenOptions(
            self.precision,
            self.batch,
            build=not self.no_build,
            allow_unqualified=self.allow_unqualified,
            streams=self.streams,
        )
        return RunSpec(self.model, settings, self.engine, options, self.threads)

    def operating(self) -> AbstractContextManager[Operating]:
        """See `operating`."""
        return operating(
            log_json=self.log_json,
            serve=self.serve,
            on_done=self.on_done,
            on_done_url=self.on_done_url,
            quiet=self.quiet,
        )

    def workers(self, out: Path, sources: Sequence[Path], events: Events) -> RayChoice | None:
        """How Ray is used; None where it is not."""
        if self.ray is None:
            return None
        return RayChoice(self.ray, self.ray_cores, out, tuple(sources), events)

    def _outputs(self) -> Outputs:
        return Outputs(
            simplify_um=self.simplify_um,
            min_region_um2=self.min_region_um2,
            classes=tuple(self.classes or ()),
            dicom_seg=self.dicom_seg,
            ome_zarr=self.ome_zarr,
            probabilities=self.probabilities,
        )
