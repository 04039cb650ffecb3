"""The native TensorRT session on a recording fake, through both libraries that drive a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.runtime.contract import OUTPUT_NAMES, MaskRule
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES
from sshr_deploy.runtime.sessions.parts import Part, timed_parts
from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession
from sshr_deploy.runtime.sessions.tensorrt.slot import EngineCall, calls
from tests.runtime.fake_gpu import FakeGpu
from tests.runtime.session_contract import RULE, SessionContract, Subject, masks_of, noise
from tests.runtime.sessions.fake_tensorrt_runtime import FakeTensorRt, make_plan, network
from tests.runtime.sessions.fake_tensorrt_session import (
    BATCHES,
    CLASSES,
    ENGINES,
    LIBRARIES,
    Opener,
    expected_labels,
    install_fake_tensorrt,
)


@pytest.fixture
def session(opener: Opener, library: str) -> Iterator[TensorRtSession]:
    with opener(library=library) as session:
        yield session


class TestTensorRt(SessionContract):
    @pytest.fixture(scope="class", params=product(ENGINES, DEVICE_LIBRARIES), ids="-".join)
    @classmethod
    def subject(
        cls,
        request: pytest.FixtureRequest,
        mask_kernels: Path,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Subject]:
        engine, library = request.param
        path = tmp_path_factory.mktemp("engine") / "engine.plan"
        path.write_bytes(make_plan(CLASSES, BATCHES))
        settings: Any = {"precision": "fp32", "batches": BATCHES, "library": library}
        made_by = LIBRARIES[engine]
        with pytest.MonkeyPatch.context() as monkeypatch:
            install_fake_tensorrt(monkeypatch, mask_kernels)
            yield Subject(
                open=lambda: TensorRtSession(
                    path, CLASSES, engine=engine, made_by=made_by, **settings
                ),
                expected=lambda patches: network(patches, CLASSES),
                engine=engine,
                classes=CLASSES,
            )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [EngineCall(0, 1, 1, 0, True)]),
        (5, [EngineCall(0, 5, 5, 2, False)]),
        (6, [EngineCall(0, 6, 8, 1, True)]),
        (8, [EngineCall(0, 8, 8, 1, True)]),
        (
            19,
            [
                EngineCall(0, 8, 8, 1, True),
                EngineCall(8, 8, 8, 1, True),
                EngineCall(16, 3, 3, 2, False),
            ],
        ),
    ],
)
def test_batches_are_divided(count: int, expected: list[EngineCall]) -> None:
    assert list(calls(count, (1, 8))) == expected
    swapped = [replace(part, profile={0: 1, 1: 0}.get(part.profile, 2)) for part in expected]
    assert list(calls(count, (8, 1))) == swapped


@pytest.mark.parametrize("batches", [(1, 4), (4, 1), (3,), (2, 4, 16)])
def test_every_patch_is_computed_once(batches: tuple[int, ...]) -> None:
    for count in range(1, 40):
        found = list(calls(count, batches))
        patches = [part.first + index for part in found for index in range(part.count)]
        assert patches == list(range(count))
        for part in found:
            assert part.count <= part.size <= max(batches)
            assert not part.is_static or batches[part.profile] == part.size
            assert part.is_static or part.profile == len(batches)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 9])
def test_outputs_are_those_of_the_network_to_the_bit(session: TensorRtSession, count: int) -> None:
    for _ in range(3):  # plainly, then through graphs
        patches = noise(count)
        found, expected = session.infer(patches), network(patches, CLASSES)
        for name in OUTPUT_NAMES:
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_sizes_go_through_their_profiles(session: TensorRtSession, trt: FakeTensorRt) -> None:
    trt.enqueued.clear()
    for count in (1, 2, 3, 7):
        session.infer(noise(count))
    calls = {1: [(0, 1)], 2: [(2, 2)], 3: [(1, 4)], 7: [(1, 4), (1, 4)]}
    seen = [call for call, after in pairwise([*trt.enqueued, None]) if call != after]
    wanted = [call for count in calls for call in calls[count]]
    assert seen == [call for call, after in pairwise([*wanted, None]) if call != after]


def test_the_tail_changes_its_size(opener: Opener, library: str, trt: FakeTensorRt) -> None:
    with opener(make_plan(CLASSES, (8, 1)), batches=(8, 1), library=library) as session:
        trt.enqueued.clear()
        for count in (2, 5, 3, 2):
            patches = noise(count)
            expected = network(patches, CLASSES)
            assert np.array_equal(session.infer(patches).cam_28_1, expected.cam_28_1)
        assert trt.enqueued == [(2, 2), (2, 5), (2, 3), (2, 2)]


def test_nothing_is_allocated_after_the_opening(session: TensorRtSession, gpu: FakeGpu) -> None:
    before, streams = gpu.allocations, len(gpu.waiting)
    for count in (1, 2, 3, 4, 11):
        session.infer(noise(count))
        list(masks_of(session, [noise(count)] * 3))
    assert (gpu.allocations, len(gpu.waiting)) == (before, streams)


def test_a_graph_is_captured_once_and_replayed(opener: Opener, gpu: FakeGpu) -> None:
    with opener(library="cuda-core") as session:
        for _ in range(6):
            session.infer(noise(4))
        streams = {stream for what, stream in gpu.log if what == "begin capture"}
        assert len(streams) == 2
        for stream in streams:
            asked = [what for what, at in gpu.log if at == stream]
            assert asked.count("begin capture") == asked.count("enqueue") == 1
            assert asked.count("graph") >= 2
            first = asked[: asked.index("begin capture")]
            # the patches, the engine, four outputs, and a wait before the capture
            assert first[-7:] == ["copy", "enqueue", *["copy"] * 4, "synchronize"]
        assert session.info.notes == ()
        others = MaskRule((0.1, 0.1, 0.8), 0.2)
        for rule in (RULE, others, RULE, others):
            patches = [noise(4, seed=seed) for seed in range(5)]
            for batch, found in zip(patches, masks_of(session, patches, rule), strict=True):
                assert np.array_equal(found.labels, expected_labels(batch, rule))
        captures = [stream for what, stream in gpu.log if what == "begin capture"]
        assert len(captures) == 6  # two streams: CAMs alone, and with each rule
        assert len(gpu.graphs) == 6
    assert not gpu.graphs


def test_timed_parts_are_waited_for_and_leave_the_graphs(opener: Opener, gpu: FakeGpu) -> None:
    with opener(library="cuda-core") as session:
        for _ in range(4):
            list(masks_of(session, [noise(4)]))
        gpu.log.clear()
        with timed_parts() as times:
            list(masks_of(session, [noise(4)]))
        copies_out = ["copy"] * 5  # four outputs and the label maps
        assert [what for what, _ in gpu.log] == [
            *("copy", "synchronize"),
            *("enqueue", "synchronize"),
            *("launch", "launch", "synchronize"),
            *(*copies_out, "synchronize"),
        ]
        assert all(times.ms[part] > 0 for part in Part)
        gpu.log.clear()
        list(masks_of(session, [noise(4)]))
        assert [what for what, _ in gpu.log] == ["graph", "synchronize"]


def test_graphs_can_be_switched_off_and_on(opener: Opener, gpu: FakeGpu) -> None:
    with opener(library="cuda-core") as session:
        for _ in range(4):
            session.infer(noise(4))
        for graphs, wanted in ((False, 0), (True, 1)):
            session.cuda_graphs = graphs
            assert session.cuda_graphs is graphs
            gpu.log.clear()
            session.infer(noise(4))
            assert [what for what, _ in gpu.log].count("graph") == wanted


def test_tails_have_no_graph(opener: Opener, gpu: FakeGpu) -> None:
    with opener(library="cuda-core") as session:
        gpu.log.clear()
        for count in (2, 2, 2, 2):
            session.infer(noise(count))
        asked = [what for what, _ in gpu.log]
        assert asked.count("enqueue") == 4
        assert not {"begin capture", "graph"} & set(asked)


def test_two_batches_are_in_flight(session: TensorRtSession, gpu: FakeGpu) -> None:
    batches = [noise(4, seed=seed) for seed in range(6)]
    list(masks_of(session, batches))  # graphs are there now
    gpu.log.clear()
    taken: list[int] = []

    def source() -> Iterator[Any]:
        for index, batch in enumerate(batches):
            taken.append(index)
            yield batch

    for index, _ in enumerate(masks_of(session, source())):
        assert taken[-1] == min(index + 2, 5)
    starts = ("graph", "enqueue")
    order = [(what, stream) for what, stream in gpu.log if what in (*starts, "synchronize")]
    started = [stream for what, stream in order if what in starts]
    assert len(started) == 6
    assert all(one != two for one, two in pairwise(started))
    in_flight, most = set(), []
    for what, stream in order:
        if what == "synchronize":
            in_flight.discard(stream)
        else:
            assert stream not in in_flight
            in_flight.add(stream)
            most.append(len(in_flight))
    assert most == [1, 2, 2, 2, 2, 2]


def test_calls_between_the_masks_of_a_run_disturb_nothing(session: TensorRtSession) -> None:
    batches = [noise(count, seed=count) for count in (4, 1, 9, 2, 4)]
    other = network(noise(5), CLASSES)
    for batch, found in zip(batches, masks_of(session, batches), strict=True):
        assert np.array_equal(session.infer(noise(5)).cam_deep, other.cam_deep)
        assert np.array_equal(found.labels, expected_labels(batch, RULE))
        assert np.array_equal(found.prob, network(batch, CLASSES).prob)


def test_each_slot_and_profile_has_its_context(opener: Opener, trt: FakeTensorRt) -> None:
    with opener(engine="tensorrt-rtx", library="cuda-core") as session:
        for _ in range(4):
            for count in (1, 2, 4):
                session.infer(noise(count))
        made = [(context.profile, context.memory) for context in trt.contexts]
        assert sorted(profile for profile, _ in made) == [0, 0, 1, 1, 2, 2]
        assert len(set(made)) == 6
        assert len({memory for _, memory in made}) == 2
        for context in trt.contexts:
            strategy = context.config.dynamic_shapes_kernel_specialization_strategy
            assert strategy.name == "EAGER"


def test_the_device_makes_the_masks(session: TensorRtSession, gpu: FakeGpu) -> None:
    (found,) = masks_of(session, [noise(4)])
    assert np.array_equal(found.labels, expected_labels(noise(4), RULE))
    assert [launch.grid for launch in gpu.launches[:2]] == [(9, 4, 1), (7, 28, 4)]
