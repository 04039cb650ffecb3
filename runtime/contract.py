"""The contract between the slide pipeline and whatever runs the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import PATCH, Geometry

PATCH_PX = PATCH.side_px
"""Height and width of a patch as the network takes it, in pixels."""

INPUT_NAME = "patches"
CAM_NAMES = ("cam_28_1", "cam_28_2", "cam_deep")
OUTPUT_NAMES = (*CAM_NAMES, "prob")

K = TypeVar("K")


@dataclass(frozen=True)
class CamBatch:
    """Output of the network for B patches or fields and N classes; all float32 and finite.

    C is the number of cells along the side that is kept of an input, 28 of a patch. Fields of other
    sides than their geometry's have as many rows and columns as are kept of them.
    """

    cam_28_1: NDArray[np.float32]  # [B, N, C, C], >= 0
    cam_28_2: NDArray[np.float32]  # [B, N, C, C], >= 0
    cam_deep: NDArray[np.float32]  # [B, N, C, C], >= 0
    prob: NDArray[np.float32]  # [B, N], 0 to 1; of fields [B, N, C, C]

    def __len__(self) -> int:
        return len(self.prob)

    def cams(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """The three CAMs [N, C, C] of one input, in the order of `CAM_NAMES`."""
        return self.cam_28_1[index], self.cam_28_2[index], self.cam_deep[index]


@dataclass(frozen=True)
class MaskRule:
    """How CAMs become a label map; see `sshr_deploy.runtime.masks`."""

    weights: tuple[float, float, float]
    """Of the CAMs, in the order of `CAM_NAMES`."""
    threshold: float
    """A class is on where its probability is above this."""


@dataclass(frozen=True)
class FieldRule:
    """How CAMs of fields become a label map; see `sshr_deploy.runtime.field_labels`."""

    weights: tuple[float, float, float]
    """Of the CAMs, in the order of `CAM_NAMES`."""
    threshold: float
    """A class is on at a cell where its probability there is above this."""
    percentile: float = 99.0
    """Of the CAMs over the tissue, which each level is divided by."""
    bias: tuple[float, ...] = ()
    """Added to the score of each class that is on; empty for none."""


class MaskBatch(NamedTuple):
    """Label maps of B patches by the published post-processing."""

    labels: NDArray[np.uint8]  # [B, 224, 224], 0 to N-1
    prob: NDArray[np.float32]  # [B, N]


@dataclass(frozen=True)
class SessionInfo:
    """The engine that served a run, for `run.json`."""

    engine: str
    """A name of `engines.kinds`, or "pytorch-cpu" and the like."""
    precision: str
    device: str
    library: str
    """Library and version, "onnxruntime 1.32.0"."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Engines that would have been faster, each with the reason it was not used."""
    notes: tuple[str, ...] = ()
    """For readers of the results: things that the engine could not use here, and why."""
    mask_agreement: float | None = None
    """Share of mask pixels equal to the reference's, as found on this machine; None if unknown."""
    unqualified: str | None = None
    """Why it runs although nothing shows that it equals the reference; None where that is shown."""
    threads: int | None = None
    """CPU threads that compute; None on a GPU, and where the library chooses."""
    streams: int | None = None
    """Calls at the same time, which share the threads; None where the engine has no such choice."""

    def worded(self, wording: Callable[[str], str]) -> SessionInfo:
        """The same, its texts put into the words of a user."""
        return replace(
            self,
            rejected={name: wording(why) for name, why in self.rejected.items()},
            notes=tuple(map(wording, self.notes)),
            unqualified=None if self.unqualified is None else wording(self.unqualified),
        )


class Session(Protocol):
    """A loaded network. A context manager; not thread-safe."""

    info: SessionInfo
    geometry: Geometry
    """Of its inputs: patches, or fields."""
    any_side: bool
    """It takes fields of all sides that `Geometry.fits` allows, also with two different ones."""
    cuda_graphs: bool | None
    """Whether calls are captured in CUDA graphs and replayed, which may be set at any time; None
    where there is no such choice."""
    labels_on_device: bool
    """Whether a GPU makes the label maps of `stream`; else they are made of its CAMs here."""

    @overload
    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: None = None
    ) -> Iterator[tuple[K, CamBatch]]: ...

    @overload
    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: MaskRule
    ) -> Iterator[tuple[K, MaskBatch]]: ...

    def stream(
        self, batches: Iterable[tuple[K, NDArray[np.uint8]]], rule: MaskRule | None = None
    ) -> Iterator[tuple[K, CamBatch]] | Iterator[tuple[K, MaskBatch]]:
        """CAMs of batches of patches, or their label maps where there is a `rule`, in order.

        Batches are taken as results are asked for, a few ahead of them where the engine computes
        one while another is copied.

        Args:
            batches: a key of any kind, and uint8 RGB [B, side_px, side_px, 3] of the session's
                `geometry` (or other sides, see `any_side`), any B >= 1. The key comes back with
                the result; a batch may hold patches of several slides.
            rule: how CAMs become label maps; for patches alone, as those of fields depend on all
                of a slide.

        Raises:
            SessionError: wrong shape or dtype, a rule for fields, a failure of the engine, or
                impossible outputs (see `checked_cams`).
        """
        ...

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """CAMs and probabilities of one batch, as from `stream`."""
        ...

    def close(self) -> None:
        """Free the engine; safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def checked_patches(
    patches: NDArray[np.uint8], geometry: Geometry = PATCH, *, any_side: bool = False
) -> NDArray[np.uint8]:
    """The same patches or fields, C-contiguous.

    Raises:
        SessionError: not uint8 [B >= 1, side_px, side_px, 3], or with `any_side` of other sides
            than `Geometry.fits` allows.
    """
    shape = geometry.input_shape()
    if not isinstance(patches, np.ndarray):
        raise SessionError(f"patches must be a NumPy array, not {type(patches).__name__}")
    fitting = patches.ndim == 4 and patches.dtype == np.uint8 and patches.shape[3] == 3
    if any_side:
        fitting = fitting and all(map(geometry.fits, patches.shape[1:3]))
    else:
        fitting = fitting and patches.shape[1:] == shape
    if not fitting:
        wanted = ", ".join(map(str, shape))
        smaller = f", or a side less by multiples of {geometry.step_px}" if any_side else ""
        raise SessionError(
            f"patches must be uint8 [B, {wanted}]{smaller}, "
            f"not {patches.dtype} {list(patches.shape)}"
        )
    if len(patches) == 0:
        raise SessionError("patches must hold at least one patch")
    return np.ascontiguousarray(patches)


def checked_cams(batch: CamBatch, patches: int) -> CamBatch:
    """The same batch.

    Raises:
        SessionError: an output is not for `patches` patches, holds NaN or infinity, or is negative.
    """
    for name in OUTPUT_NAMES:
        output = getattr(batch, name)
        if len(output) != patches:
            raise SessionError(f"the engine returned {len(output)} {name} for {patches} patches")
        if not np.isfinite(output).all():
            raise SessionError(
                f"the engine returned NaN or infinite values in {name}; "
                "the weights overflow or the engine is at fault"
            )
        if output.min() < 0:
            raise SessionError(f"the engine returned negative values in {name}; export it again")
    return batch
