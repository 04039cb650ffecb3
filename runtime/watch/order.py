"""Order of the slides of a watch."""

from __future__ import annotations

from sshr_deploy.choice import Choice


class Order(Choice):
    """Which slide is next, by when its file was written."""

    OLDEST = "oldest"
    NEWEST = "newest"
