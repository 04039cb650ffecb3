from __future__ import annotations

import pytest

from sshr_deploy.benchmarks.measuring.batches import parse_batches
from sshr_deploy.errors import UsageError


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1,,2", "99999"])
def test_wrong_batch_lists_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`batches`"):
        parse_batches(text)


def test_batch_lists_are_sorted_without_doubles() -> None:
    assert parse_batches("8, 1,8") == [1, 8]
