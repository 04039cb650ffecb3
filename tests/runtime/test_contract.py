"""The contract fails where a session breaks it: a test that cannot fail shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest

from sshr_deploy.runtime.contract import CamBatch, MaskBatch, MaskRule
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.runtime.session_contract import SessionContract, Subject
from tests.runtime.sessions.small_graph import Graph, expected, writer


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return writer(tmp_path_factory.mktemp("graphs"))


class _Swaps(OnnxRuntimeSession):
    """Gives the patches of a batch in another order."""

    def infer(self, patches: Any) -> CamBatch:
        return super().infer(patches[::-1])


class _Greedy(OnnxRuntimeSession):
    """Takes batches without end before it gives the first."""

    def masks(self, batches: Any, rule: MaskRule) -> Iterator[MaskBatch]:
        return super().masks(list(islice(batches, 50)), rule)


class _Shuffles(OnnxRuntimeSession):
    """Gives batches in another order."""

    def masks(self, batches: Any, rule: MaskRule) -> Iterator[MaskBatch]:
        return iter(list(super().masks(batches, rule))[::-1])


class _Shares(OnnxRuntimeSession):
    """Gives views of one buffer."""

    buffer: Any = None

    def infer(self, patches: Any) -> CamBatch:
        found = super().infer(patches)
        if self.buffer is None or self.buffer.shape != found.prob.shape:
            self.buffer = found.prob.copy()
        self.buffer[:] = found.prob
        return replace(found, prob=self.buffer)


class _Swallows(OnnxRuntimeSession):
    """Ends quietly where its source fails."""

    def masks(self, batches: Any, rule: MaskRule) -> Iterator[MaskBatch]:
        with suppress(Exception):
            yield from super().masks(batches, rule)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (_Swaps, partial(SessionContract.test_it_says_what_the_reference_says, batch=2)),
        (_Greedy, SessionContract.test_masks_take_batches_as_they_come),
        (_Shuffles, SessionContract.test_masks_are_those_of_infer_in_order),
        (_Shares, SessionContract.test_results_stay_what_they_were),
        (_Swallows, SessionContract.test_an_error_of_the_source_passes_through),
    ],
)
def test_the_contract_notices_what_is_wrong(
    graph: Graph, broken: type[OnnxRuntimeSession], check: Callable[..., None]
) -> None:
    path = graph("FLOAT")
    for kind, fails in ((OnnxRuntimeSession, False), (broken, True)):
        subject = Subject(partial(kind, path, 3), expected, "onnx-cpu")
        with subject.open() as session:
            try:
                check(SessionContract(), subject=subject, session=session)
            except (AssertionError, pytest.fail.Exception):
                assert fails
            else:
                assert not fails
