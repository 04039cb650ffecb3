"""A preview says what a run would do."""

from __future__ import annotations

import shutil
from pathlib import Path

from sshr_deploy.bundle import Bundle
from sshr_deploy.runtime.pipeline.preview import previews
from sshr_deploy.runtime.pipeline.work import prepare_run
from tests.runtime.pipeline.flow_parts import Session, slides
from tests.runtime.running import Runner, context_of


def test_the_same_file_twice_under_one_name_is_refused_by_both(
    bundle: Bundle, tmp_path: Path
) -> None:
    """As for a run: what is done is that of the first; once that is moved away, it counts."""
    first, second, out = slides(tmp_path / "a", 1), tmp_path / "b", tmp_path / "out"
    Runner(bundle, Session())(first, out)
    shutil.copytree(first, second)
    context = context_of(bundle, Session())
    with prepare_run(second, out, context.settings) as work:
        (shown,) = previews(work.found, out, context)
        assert shown.fate == "refused"
        assert "would replace the result of" in shown.reason
        shutil.rmtree(first)
        (shown,) = previews(work.found, out, context)
        assert shown.fate == "done"
