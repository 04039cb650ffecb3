"""Stands in for NVIDIA's trtexec: options, files and their forms as its sources have them.

It knows what the reference's patches give, from answers.json beside it, and refuses what the real
one refuses. `fails` in that file makes it fail as the real one does.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

PATCH_BYTES = 224 * 224 * 3


def main() -> None:
    """Do what the options ask for."""
    answers = json.loads(Path(__file__).with_name("answers.json").read_text("utf-8"))
    options = dict(option[2:].partition("=")[::2] for option in sys.argv[1:])
    batch = int(options["shapes"].removeprefix("patches:").partition("x")[0])
    assert options["shapes"] == f"patches:{batch}x224x224x3"
    if answers["fails"]:
        print(f"[11/28/2026-14:00:00] [I] starting\n[11/28/2026-14:00:01] [E] {answers['fails']}")
        print("[11/28/2026-14:00:01] [E] and more")
        sys.exit(1)
    if "onnx" in options:
        assert Path(options["onnx"]).is_file() and "skipInference" in options
        Path(options["saveEngine"]).write_text(str(batch), "utf-8")
        return
    assert Path(options["loadEngine"]).read_text("utf-8") == str(batch)
    if "exportOutput" in options:
        outputs = _outputs(answers, batch, options["loadInputs"].removeprefix("patches:"))
        Path(options["exportOutput"]).write_text(json.dumps(outputs), "utf-8")
    if "exportTimes" in options:
        calls = [_call(start) for start in range(0, 1000, 50)]
        Path(options["exportTimes"]).write_text(json.dumps(calls), "utf-8")


def _outputs(answers: dict[str, dict[str, object]], batch: int, file: str) -> list[object]:
    patches = Path(file).read_bytes()
    assert len(patches) == batch * PATCH_BYTES
    digests = [
        hashlib.sha256(patches[start : start + PATCH_BYTES]).hexdigest()
        for start in range(0, len(patches), PATCH_BYTES)
    ]
    known = answers["patches"]
    names = known[digests[0]]
    assert isinstance(names, dict)
    return [
        {"name": name, "values": [x for digest in digests for x in known[digest][name]]}  # type: ignore[index]
        for name in names
    ]


def _call(start_ms: int) -> dict[str, float]:
    """A warm call takes 4 ms; those of the first half second take 10 times as long."""
    slow = 10 if start_ms < 500 else 1
    times = {"h2dMs": 1.0 * slow, "computeMs": 2.5 * slow, "d2hMs": 0.5 * slow}
    return {"startComputeMs": 2000.0 + start_ms, **times, "latencyMs": sum(times.values())}


if __name__ == "__main__":
    main()
