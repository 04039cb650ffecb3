"""HFRM plus its CAM head in ONNX Runtime: which exact form is fastest where the graph runs.

    python -m sshr_deploy.benchmarks.hfrm_forms --json FILE

Needs the extra `export`. The result decides `HfrmForm` of the graph for processors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.export.graph.onnx_from_network import export_module
from sshr_deploy.model import HFRM
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime

SHAPES = ((512, 28, 28), (1024, 28, 28))
"""(C, H, W) of the two levels that inference keeps, at width 64."""
_CONTEXT, _HIDDEN, _CLASSES = 4096, 512, 4
_ROUNDS = 60
_WARM_UP = 5


class _Plain(nn.Module):
    def __init__(self, hfrm: HFRM, head: nn.Conv2d) -> None:
        super().__init__()
        self.hfrm, self.head = hfrm, head

    def forward(self, feature: Tensor, context: Tensor) -> Tensor:
        cam: Tensor = self.head(self.hfrm(feature, context))
        return cam


class _Depthwise(_Plain):
    def forward(self, feature: Tensor, context: Tensor) -> Tensor:
        return self.hfrm.cam_depthwise(feature, context, self.head)


class _Separable(_Plain):
    def forward(self, feature: Tensor, context: Tensor) -> Tensor:
        return self.hfrm.cam_separable(feature, context, self.head)


FORMS = {"plain": _Plain, "depthwise": _Depthwise, "separable": _Separable}


def measure(rounds: int = _ROUNDS) -> dict[str, Any]:
    """Milliseconds at batch 1 by shape and form; the forms take turns. The outputs are compared.

    Raises:
        RuntimeError: a form's CAM differs from that of the plain one by more than 1e-4 (relative).
    """
    rows = []
    for shape in SHAPES:
        calls = _calls(shape)
        reference = calls["plain"]()[0]
        for name, call in calls.items():
            error = float(np.abs(call()[0] - reference).max() / np.abs(reference).max())
            if error > 1e-4:
                raise RuntimeError(
                    f"{name} differs from plain by {error:.1e}; no speed is reported"
                )
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + _WARM_UP):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn >= _WARM_UP:
                    samples[name].append((time.perf_counter() - start) * 1e3)
        for name, values in samples.items():
            rows.append(
                {
                    "shape": shape,
                    "form": name,
                    "median_ms": float(np.median(values)),
                    "samples_ms": values,
                }
            )
    return {"benchmark": "hfrm_forms", "environment": describe_environment(), "rows": rows}


def _calls(shape: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    hfrm = HFRM(shape[0], _CONTEXT, _HIDDEN).eval()
    nn.init.constant_(hfrm.gamma_veto, 0.7)
    nn.init.constant_(hfrm.gamma_context, 0.9)
    nn.init.normal_(hfrm.context_conv.weight, std=0.01)
    head = nn.Conv2d(shape[0], _CLASSES, 1)
    inputs = torch.rand(1, *shape), torch.rand(1, _CONTEXT)
    feeds = {"feature": inputs[0].numpy(), "context": inputs[1].numpy()}
    calls: dict[str, Callable[[], Any]] = {}
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "form.onnx"
            export_module(
                form(hfrm, head), inputs, path, input_names=list(feeds), output_names=["cam"]
            )
            session = import_onnxruntime().InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        calls[name] = partial(session.run, None, feeds)
    return calls


def main() -> None:
    """Measure, print the medians, and write the raw samples where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    args = parser.parse_args()
    report = measure()
    for row in report["rows"]:
        print(json.dumps({k: v for k, v in row.items() if k != "samples_ms"}))
    if args.json is not None:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
