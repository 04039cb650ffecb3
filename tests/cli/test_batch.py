"""How many patches go through the engine at a time, where the user does not say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sshr_deploy.api import Model
from sshr_deploy.cli import app
from tests.runtime.session_contract import noise

Run = Callable[..., int]


@pytest.fixture
def recorded_batch(small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `infer` as if `engine` had been opened; gives what run.json says of the batch."""
    Image.fromarray(np.ascontiguousarray(noise(1)[0])).save(tmp_path / "patch.png")
    module = importlib.import_module("sshr_deploy.cli.engine")
    open_model = module.open_model

    def run(engine: str, *options: str) -> int:
        def opened(*arguments: Any, **keywords: Any) -> Model:
            model: Model = open_model(*arguments, **keywords)
            model.session.info = replace(model.session.info, engine=engine)
            return model

        monkeypatch.setattr(module, "open_model", opened)
        arguments = ["infer", tmp_path / "patch.png", "--model", small_bundle_dir, "--json"]
        arguments += ["--out", tmp_path / "out", "--engine", "onnx-cpu", "--quiet", *options]
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        document = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
        return int(document["settings"]["batch"])

    return run


@pytest.mark.parametrize(
    ("engine", "options", "batch"),
    [("onnx-cpu", (), 8), ("tensorrt-rtx", (), 32), ("tensorrt-rtx", ("--batch", "3"), 3)],
)
def test_run_json_says_how_many(
    recorded_batch: Run, engine: str, options: tuple[str, ...], batch: int
) -> None:
    assert recorded_batch(engine, *options) == batch
