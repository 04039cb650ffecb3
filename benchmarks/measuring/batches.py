"""Batch sizes and other counts as a user gives them."""

from __future__ import annotations

from sshr_deploy.errors import UsageError

MAX_BATCH = 1024


def parse_batches(text: str, setting: str = "batches") -> list[int]:
    """ "1,4,8" -> [1, 4, 8], sorted and without doubles; errors name the setting.

    Raises:
        UsageError: not whole numbers from 1 to 1024.
    """
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sizes[-1] > MAX_BATCH:
        raise UsageError(
            f"`{setting}` {text!r}: give whole numbers from 1 to {MAX_BATCH} with commas between"
        )
    return sizes
