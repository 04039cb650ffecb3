"""The contract fails where a session breaks it: a test that cannot fail shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest

from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.runtime.session_contract import RULE, SessionContract, Subject
from tests.runtime.sessions.small_graph import Graph, expected, writer


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return writer(tmp_path_factory.mktemp("graphs"))


class _Swaps(OnnxRuntimeSession):
    """Gives the patches of a batch in another order."""

    def _compute(self, patches: Any) -> CamBatch:
        return super()._compute(patches[::-1])


class _Greedy(OnnxRuntimeSession):
    """Takes batches without end before it gives the first."""

    def stream(self, batches: Any, rule: Any = None) -> Any:
        return super().stream(list(islice(batches, 50)), rule)


class _Shuffles(OnnxRuntimeSession):
    """Gives batches in another order."""

    def stream(self, batches: Any, rule: Any = None) -> Any:
        return iter(list(super().stream(batches, rule))[::-1])


class _Shares(OnnxRuntimeSession):
    """Gives views of one buffer."""

    buffer: Any = None

    def _compute(self, patches: Any) -> CamBatch:
        found = super()._compute(patches)
        if self.buffer is None or self.buffer.shape != found.prob.shape:
            self.buffer = found.prob.copy()
        self.buffer[:] = found.prob
        return replace(found, prob=self.buffer)


class _Swallows(OnnxRuntimeSession):
    """Ends quietly where its source fails."""

    def stream(self, batches: Any, rule: Any = None) -> Any:
        with suppress(Exception):
            yield from super().stream(batches, rule)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (_Swaps, partial(SessionContract.test_it_says_what_the_reference_says, batch=2)),
        (_Greedy, partial(SessionContract.test_batches_are_taken_as_they_come, rule=RULE)),
        (_Greedy, partial(SessionContract.test_batches_are_taken_as_they_come, rule=None)),
        (_Shuffles, SessionContract.test_masks_are_those_of_infer_in_order),
        (_Shuffles, SessionContract.test_cams_of_a_stream_are_those_of_infer_with_their_keys),
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
