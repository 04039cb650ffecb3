"""`docs/unattended.md` names all that an operator's own programs rely on, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sshr_deploy.runtime.operation.ended import Failure
from sshr_deploy.runtime.operation.events import Code
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.runtime.operation.hook import PLACES
from sshr_deploy.runtime.operation.metrics import Metrics
from sshr_deploy.runtime.watch.queue import State

CRASH = "crash"
"""A failure that only the queue of a watch sees."""


@pytest.fixture(scope="module")
def text(repo_root: Path) -> str:
    return (repo_root / "docs" / "unattended.md").read_text("utf-8")


def first_column(text: str, head: str) -> list[str]:
    """Names in the first column of the table with that head."""
    table = text.split(f"| {head} |")[1].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_codes_failures_and_states(text: str) -> None:
    assert sorted(first_column(text, "code")) == sorted(Code)
    assert sorted(first_column(text, "failure")) == sorted([*Failure, CRASH])
    assert sorted(first_column(text, "state")) == sorted(State)


def test_metrics(text: str) -> None:
    families = text_string_to_metric_families(Metrics(Health()).text().decode())
    known = {f.name + "_total" * (f.type == "counter") for f in families}
    known = {name for name in known if not name.endswith("_created")}
    assert set(first_column(text, "metric")) == known | {"sshr_disk_free_bytes"}


def test_places_of_commands(text: str) -> None:
    assert set(re.findall(r"\{(\w+)\}", text.split("### `--on-done")[1])) == set(PLACES)
