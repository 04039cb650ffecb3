"""The contract of `Session` as tests; whatever runs the network passes them.

class TestMyEngine(SessionContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, ...) -> Subject:
        return Subject(open=lambda: MySession(...), expected=..., engine="my-engine")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.contract import (
    CAM_NAMES,
    OUTPUT_NAMES,
    PATCH_PX,
    CamBatch,
    MaskBatch,
    MaskRule,
    Session,
)
from sshr_deploy.runtime.masks import label_map
from sshr_deploy.runtime.sessions.parts import Part, timed_parts

Patches = NDArray[np.uint8]
RULE = MaskRule((0.5, 0.3, 0.2), 0.4)


@dataclass(frozen=True)
class Tolerance:
    """How far a session may be from what is expected."""

    cam: float = 1e-4
    """RMS of a CAM's error over RMS of that CAM."""
    prob: float = 1e-4
    """Largest difference of probabilities."""
    alone: float = 1e-4
    """As `cam`, between a patch alone and the same one in a batch."""
    masks: float = 1.0
    """Share of pixels of label maps that equal those of what `infer` gives."""


@dataclass(frozen=True)
class Subject:
    """One engine under test."""

    open: Callable[[], Session]
    expected: Callable[[Patches], CamBatch]
    """What an independent reference says of patches."""
    engine: str
    precision: str = "fp32"
    classes: int = 3
    large_batch: int = 11
    """More patches than the engine takes at once; no multiple of that."""
    ahead: int = 4
    """Batches that `stream` may take beyond the one it gives."""
    tolerance: Tolerance = Tolerance()


def noise(batch: int, seed: int | None = None) -> Patches:
    """uint8 [batch, 224, 224, 3], the same for the same arguments."""
    rng = np.random.default_rng(batch if seed is None else seed)
    # Blocks, not pixels: white noise of single pixels looks alike everywhere to a network.
    blocks = rng.integers(0, 256, (batch, 14, 14, 3), np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)


def relative_rms(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """RMS(got - expected) / RMS(expected), in float64."""
    exact = expected.astype(np.float64)
    size = np.sqrt(np.mean(exact**2))
    assert size > 0, "a reference of zeros shows nothing"
    return float(np.sqrt(np.mean((got - exact) ** 2)) / size)


def check_close(got: CamBatch, expected: CamBatch, cam: float, prob: float) -> None:
    """CAMs within the relative error `cam`, probabilities within `prob`."""
    for name in CAM_NAMES:
        error = relative_rms(getattr(got, name), getattr(expected, name))
        assert error <= cam, f"{name} is off by {error:.1e}"
    error = float(np.abs(got.prob - expected.prob).max())
    assert error <= prob, f"prob is off by {error:.1e}"


def check_masks(got: MaskBatch, cams: CamBatch, agreement: float) -> None:
    """Label maps are those of `cams` by the published post-processing."""
    wanted = np.stack(
        [
            label_map(cams, index, RULE, height_px=PATCH_PX, width_px=PATCH_PX)
            for index in range(len(cams))
        ]
    )
    assert got.labels.dtype == np.uint8
    assert got.labels.shape == wanted.shape
    share = float((got.labels == wanted).mean())
    assert share >= agreement, f"{share:.4%} of the pixels agree"
    np.testing.assert_allclose(got.prob, cams.prob, rtol=1e-3, atol=1e-4)


def masks_of(
    session: Session, batches: Iterable[Patches], rule: MaskRule = RULE
) -> Iterator[MaskBatch]:
    """Label maps of `batches`, whose keys are checked to come back."""
    for number, (key, masks) in enumerate(session.stream(enumerate(batches), rule)):
        assert key == number
        yield masks


class BrokenSourceError(Exception):
    """What a source of patches may raise."""


class SessionContract:
    """Tests of every session; a subclass gives the fixture `subject`, of scope "class"."""

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, subject: Subject) -> Iterator[Session]:
        with subject.open() as session:
            yield session

    def test_info_is_filled_in(self, subject: Subject, session: Session) -> None:
        info = session.info
        assert (info.engine, info.precision) == (subject.engine, subject.precision)
        assert info.device
        name, version = info.library.split(maxsplit=1)
        assert name and version[0].isdigit()

    @pytest.mark.parametrize("batch", [1, 2, 5, None])
    def test_it_says_what_the_reference_says(
        self, subject: Subject, session: Session, batch: int | None
    ) -> None:
        patches = noise(batch or subject.large_batch)
        found = session.infer(patches)
        assert len(found) == len(patches)
        for name in OUTPUT_NAMES:
            output = getattr(found, name)
            side = PATCH_PX // 8
            shape = (subject.classes,) if name == "prob" else (subject.classes, side, side)
            assert output.dtype == np.float32
            assert output.shape == (len(patches), *shape)
            assert np.isfinite(output).all()
            assert output.min() >= 0
        assert found.prob.max() <= 1
        check_close(found, subject.expected(patches), subject.tolerance.cam, subject.tolerance.prob)

    def test_a_patch_gives_the_same_alone_and_in_a_batch(
        self, subject: Subject, session: Session
    ) -> None:
        patches = noise(3)
        together = session.infer(patches)
        one = CamBatch(*(getattr(together, name)[1:2] for name in OUTPUT_NAMES))
        alone = session.infer(patches[1:2])
        check_close(alone, one, subject.tolerance.alone, subject.tolerance.prob)

    def test_strided_and_read_only_patches_are_taken(
        self, subject: Subject, session: Session
    ) -> None:
        patches = noise(2)
        strided = np.repeat(patches, 2, axis=0)[::2]
        strided.flags.writeable = False
        assert not strided.flags.c_contiguous
        assert np.array_equal(session.infer(strided).prob, session.infer(patches).prob)
        assert np.array_equal(patches, noise(2))

    def test_results_stay_what_they_were(self, subject: Subject, session: Session) -> None:
        first = session.infer(noise(2, seed=1))
        before = [getattr(first, name).copy() for name in OUTPUT_NAMES]
        session.infer(noise(2, seed=2))
        for name, values in zip(OUTPUT_NAMES, before, strict=True):
            assert np.array_equal(getattr(first, name), values), f"{name} was overwritten"

    @pytest.mark.parametrize(
        "patches",
        [
            np.zeros((1, 224, 224, 3), np.float32),
            np.zeros((1, 3, 224, 224), np.uint8),
            np.zeros((224, 224, 3), np.uint8),
            np.zeros((1, 225, 224, 3), np.uint8),
            np.zeros((0, 224, 224, 3), np.uint8),
        ],
        ids=["float32", "NCHW", "no batch", "225 px", "none"],
    )
    def test_wrong_patches_are_refused(self, session: Session, patches: Patches) -> None:
        with pytest.raises(SessionError, match="patches must"):
            session.infer(patches)
        with pytest.raises(SessionError, match="patches must"):
            list(masks_of(session, [patches]))
        assert len(session.infer(noise(1))) == 1, "it works on"

    def test_masks_are_those_of_infer_in_order(self, subject: Subject, session: Session) -> None:
        batches = [noise(n, seed=s) for s, n in enumerate([1, 3, 1, subject.large_batch, 2])]
        found = list(masks_of(session, iter(batches)))
        assert len(found) == len(batches)
        for patches, masks in zip(batches, found, strict=True):
            check_masks(masks, session.infer(patches), subject.tolerance.masks)
        assert len({label for masks in found for label in np.unique(masks.labels)}) > 1
        assert list(masks_of(session, [])) == []

    def test_cams_of_a_stream_are_those_of_infer_with_their_keys(
        self, subject: Subject, session: Session
    ) -> None:
        sizes = [2, 1, subject.large_batch, 1, 3]
        keys = [[("a slide", n), ("another", n)] for n in range(len(sizes))]
        batches = [noise(size, seed=seed) for seed, size in enumerate(sizes)]
        found = list(session.stream(zip(keys, batches, strict=True)))
        assert [key for key, _ in found] == keys
        for patches, (_, cams) in zip(batches, found, strict=True):
            cam, prob = subject.tolerance.alone, subject.tolerance.prob
            check_close(cams, session.infer(patches), cam, prob)

    @pytest.mark.parametrize("rule", [RULE, None], ids=["labels", "cams"])
    def test_batches_are_taken_as_they_come(
        self, subject: Subject, session: Session, rule: MaskRule | None
    ) -> None:
        taken = 0

        def endless() -> Iterator[Patches]:
            nonlocal taken
            for taken in count(1):
                yield noise(1, seed=taken)

        batches = ((None, patches) for patches in endless())
        stream: Any = session.stream
        results = stream(batches, rule)
        assert taken == 0, "nothing is taken before a result is asked for"
        for given in range(1, 4):
            _, found = next(results)
            assert given <= taken <= given + subject.ahead
            expected = subject.expected(noise(1, seed=given))
            assert np.abs(found.prob - expected.prob).max() <= subject.tolerance.prob
        del results, batches  # left half-way
        check_close(
            session.infer(noise(2)),
            subject.expected(noise(2)),
            subject.tolerance.cam,
            subject.tolerance.prob,
        )

    def test_an_error_of_the_source_passes_through(
        self, subject: Subject, session: Session
    ) -> None:
        def broken() -> Iterator[Patches]:
            yield noise(1)
            yield noise(2)
            raise BrokenSourceError

        with pytest.raises(BrokenSourceError):
            list(masks_of(session, broken()))
        (found,) = masks_of(session, [noise(2)])
        check_masks(found, session.infer(noise(2)), subject.tolerance.masks)

    def test_the_parts_of_a_call_lie_within_it(self, subject: Subject, session: Session) -> None:
        patches = noise(subject.large_batch)
        start = time.perf_counter()
        with timed_parts() as times:
            (found,) = masks_of(session, [patches])
        whole_ms = (time.perf_counter() - start) * 1e3
        assert all(times.ms[part] > 0 for part in Part)
        assert sum(times.ms.values()) <= whole_ms
        check_masks(found, session.infer(patches), subject.tolerance.masks)

    def test_a_closed_session_says_so(self, subject: Subject) -> None:
        session = subject.open()
        running = masks_of(session, (noise(1, seed=s) for s in count()))
        next(running)
        session.close()
        session.close()
        with pytest.raises(SessionError, match="closed"):
            session.infer(noise(1))
        with pytest.raises(SessionError, match="closed"):
            list(masks_of(session, [noise(1)]))
        with pytest.raises(SessionError, match="closed"):
            list(running)

    def test_two_sessions_do_not_disturb_each_other(
        self, subject: Subject, session: Session
    ) -> None:
        patches, others = noise(2, seed=1), noise(2, seed=2)
        with subject.open() as second:
            first_says, second_says = session.infer(patches), second.infer(others)
            mixed = zip(
                masks_of(session, [patches, others]),
                masks_of(second, [others, patches]),
                strict=True,
            )
            for (ours, theirs), (mine, other) in zip(
                mixed, [(patches, others), (others, patches)], strict=True
            ):
                check_masks(ours, session.infer(mine), subject.tolerance.masks)
                check_masks(theirs, second.infer(other), subject.tolerance.masks)
        cam, prob = subject.tolerance.cam, subject.tolerance.prob
        check_close(first_says, subject.expected(patches), cam, prob)
        check_close(second_says, subject.expected(others), cam, prob)
        check_close(session.infer(patches), first_says, cam, prob)
