"""The contract between the slide pipeline and whatever runs the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import SessionError

PATCH_PX = 224
"""Height and width of a patch as the network takes it, in pixels."""

INPUT_NAME = "patches"
CAM_NAMES = ("cam_28_1", "cam_28_2", "cam_deep")
OUTPUT_NAMES = (*CAM_NAMES, "prob")

K = TypeVar("K")


@dataclass(frozen=True)
class CamBatch:
    """Output of the network for B patches and N classes; all float32 and finite."""

    cam_28_1: NDArray[np.float32]  # [B, N, 28, 28], >= 0
    cam_28_2: NDArray[np.float32]  # [B, N, 28, 28], >= 0
    cam_deep: NDArray[np.float32]  # [B, N, 28, 28], >= 0
    prob: NDArray[np.float32]  # [B, N], 0 to 1

    def __len__(self) -> int:
        return len(self.prob)

    def cams(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """The three CAMs [N, 28, 28] of one patch, in the order of `CAM_NAMES`."""
        return self.cam_28_1[index], self.cam_28_2[index], self.cam_deep[index]


@dataclass(frozen=True)
class MaskRule:
    """How CAMs become a label map; see `sshr_deploy.runtime.masks`."""

    weights: tuple[float, float, float]
    """Of the CAMs, in the order of `CAM_NAMES`."""
    threshold: float
    """A class is on where its probability is above this."""


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


class Session(Protocol):
    """A loaded network. A context manager; not thread-safe."""

    info: SessionInfo
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
            batches: a key of any kind, and uint8 RGB [B, 224, 224, 3], any B >= 1. The key comes
                back with the result; a batch may hold patches of several slides.
            rule: how CAMs become label maps.

        Raises:
            SessionError: wrong shape or dtype, a failure of the engine, or impossible outputs
                (see `checked_cams`).
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


def checked_patches(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same patches, C-contiguous.

    Raises:
        SessionError: not uint8 [B >= 1, 224, 224, 3].
    """
    if not isinstance(patches, np.ndarray):
        raise SessionError(f"patches must be a NumPy array, not {type(patches).__name__}")
    if (
        patches.dtype != np.uint8
        or patches.ndim != 4
        or patches.shape[1:] != (PATCH_PX, PATCH_PX, 3)
    ):
        raise SessionError(
            f"patches must be uint8 [B, {PATCH_PX}, {PATCH_PX}, 3], "
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
