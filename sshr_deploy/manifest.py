"""`manifest.json` of a bundle: its artefacts, how each was qualified, and all hashes."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sshr_deploy.geometry import Geometry
from sshr_deploy.known_tissue import Adaptation, KnownTissue
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile, relabelled_from

SCHEMA_VERSION: Literal[5] = 5
"""Written; 4 did not say which tissue the network knows, 3 had no graphs for fields either, 2 no
shared weights and no carried profile."""
READABLE_VERSIONS = (2, 3, 4, 5)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Layer = Annotated[str, Field(max_length=200)]


class Frozen(BaseModel):
    """Base of all parts: nothing unknown, nothing infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(Frozen):
    """Size in bytes and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class IouComparison(Frozen):
    """Scores of the artefact and of the reference on the same label maps, fractions 0 to 1.

    The means are over the classes of the label maps, the same for both: a class that only one of
    them predicts somewhere must not make their means those of different classes.
    """

    mean_iou: float
    reference_mean_iou: float
    class_iou: tuple[float | None, ...]
    """None where a class occurs in no scored pixel."""
    reference_class_iou: tuple[float | None, ...]

    @property
    def drop(self) -> float:
        """By how much the artefact's mean IoU is below the reference's; negative if above."""
        return self.reference_mean_iou - self.mean_iou


class Qualification(Frozen):
    """How far an artefact is from the PyTorch FP32 network, on real patches, on one machine."""

    reference: str
    engine: str
    """Engine and library that ran the artefact, "onnx-cpu, onnxruntime 1.32.0"."""
    device: str
    patches: int
    source: str
    """Where the patches came from."""
    cam_relative_error: dict[str, float]
    """RMS error over RMS reference by output, the worst patch."""
    prob_max_abs_error: float
    gates_equal: bool
    """The same classes are switched on in every patch, at the profile's threshold."""
    gate_agreement: Share
    """Share of patches, of fields' cells, whose classes are all switched alike."""
    mask_agreement: Share
    """Share of mask pixels with the same label, over all patches."""
    mask_agreement_worst: Share
    """The same in the worst patch."""
    iou: IouComparison | None = None
    """None where the patches have no label maps."""


class Tolerance(Frozen):
    """Bounds that an artefact must keep on every machine before it is used."""

    mask_agreement: Share
    """Over all pixels, at least."""
    mask_agreement_worst: Share = 0.0
    """In the worst patch, at least."""
    cam_relative_error: float | None = None
    """At most; None where masks alone decide."""
    gates_equal: bool = False
    """Every gate of every patch must be equal."""
    gate_agreement: Share = 0.0
    """Share of fields' cells whose gates are equal, at least."""
    miou_drop: float | None = None
    """Mean IoU may fall by this, where the patches have label maps."""


class Quantisation(Frozen):
    """How an INT8 graph was made."""

    kind: str
    """Types of activations and weights, "u8s8" or "s8s8"."""
    weight_bits: int
    range_method: str
    calibration: str
    """Where the calibration patches came from, and how many."""
    quantised: tuple[Layer, ...]
    kept: tuple[Layer, ...]
    """Convolutions that stayed wider, because the budget needs it."""
    wide_nodes: tuple[Layer, ...]
    """The graph's nodes with convolutions that are not 8-bit: `kept`, and HFRM's depthwise ones."""


class Artifact(Frozen):
    """One graph of the bundle."""

    engines: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of `engines.kinds` that may run it."""
    precision: Precision
    file: str
    """The graph; its own weights are in `<file>.data`."""
    weights: tuple[str, ...] = ()
    """Files of other artefacts in which the rest of its weights are."""
    opset: int
    hfrm_form: str
    tolerance: Tolerance
    qualification: Qualification | None
    """On the machine that exported it; None where that machine could not run it."""
    not_qualified_because: str | None = None
    quantisation: Quantisation | None = None

    @model_validator(mode="after")
    def _qualified_or_why_not(self) -> Self:
        if (self.qualification is None) == (self.not_qualified_because is None):
            raise ValueError("an artefact has a qualification or the reason why it has none")
        return self


class EngineOptions(Frozen):
    """How TensorRT engines are to be built from the bundle, on any machine."""

    workspace_mib: Annotated[int, Field(ge=1)] | None = None
    """Most scratch memory of a layer on the GPU; None for all there is."""
    version_compatible: bool = False
    """Load with later releases of the same major version. TensorRT only."""
    hardware_compatible: bool = False
    """Run on every GPU from SM 8.0 on, slower; engines of TensorRT-RTX do so anyway."""


class ModelFacts(Frozen):
    """Where the weights came from."""

    width: int
    num_classes: int
    parameters: int
    gflop_per_patch: float
    """Multiplications and additions of convolutions and matrix products in the graph, in 1e9."""
    checkpoint_name: str
    checkpoint_sha256: Sha256
    metadata: dict[str, str] = {}
    """Fields of the checkpoint's own header, such as what it was trained on."""
    known_tissue: KnownTissue | None = None
    """What it was trained on, or adapted to; None where the checkpoint does not say."""
    adaptation: Adaptation | None = None
    """None for a network as training left it."""


class RuleFit(Frozen):
    """How the rule of label maps of fields was chosen on labelled images."""

    source: str
    """Labelled images, and how many."""
    mean_iou: float
    """Of images whose rule was chosen without them."""
    default_mean_iou: float
    """Of the same images by the profile's own rule."""
    used: bool
    """Better than that, and so in the profile of this manifest; else that is as it was."""
    gate_threshold: float
    cam_weights: tuple[float, float, float]
    """Of the levels 28_1, 28_2 and deep."""
    class_bias: tuple[float, ...]
    """Empty for none."""


class FieldGraphs(Frozen):
    """Graphs that compute a field at once, for label maps without seams."""

    geometry: Geometry
    gflop_per_field: float
    """As `ModelFacts.gflop_per_patch`."""
    reference_file: str
    """Fields and the PyTorch FP32 network's outputs for them."""
    rule_fit: RuleFit | None = None
    """None where the rule is the profile's own, unasked."""
    artifacts: Annotated[list[Artifact], Field(min_length=1)]


class Manifest(Frozen):
    """Content of `manifest.json`."""

    schema_version: Literal[2, 3, 4, 5]
    created_utc: str
    profile: Profile
    carried_profile: Profile | None = None
    """The profile in the checkpoint itself, where the export was told to use another."""
    model: ModelFacts
    tool_versions: dict[str, str]
    reference_file: str
    """Patches and the PyTorch FP32 network's outputs for them; see `runtime.engines.reference`."""
    engine_options: EngineOptions = EngineOptions()
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    fields: FieldGraphs | None = None
    """None where the export made none, as earlier releases did."""
    files: dict[str, FileEntry]

    @property
    def relabelled_from(self) -> dict[str, Any] | None:
        """Profile and class names that the network was trained with, where others were given."""
        return relabelled_from(self.carried_profile, self.profile)

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not _is_inside(name):
                raise ValueError(f"file name {name!r} leaves the bundle's folder")
        return files


def _is_inside(name: str) -> bool:
    for pure in (PurePosixPath(name), PureWindowsPath(name)):
        if pure.is_absolute() or pure.drive or ".." in pure.parts or not pure.parts:
            return False
    return name.isprintable()
