"""Makes the demo checkpoint: a width-8 SSHR that knows four synthetic textures.

    python -m sshr_deploy.train.demo_checkpoint --out demo/checkpoint.safetensors

No medical model: it never saw tissue, and the areas it gives mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from sshr_deploy.model.checkpoint import save_checkpoint
from sshr_deploy.train.fit import FitSettings, Scores, evaluate, fit
from sshr_deploy.train.textures import CLASS_NAMES, make_patches

HELD_OUT_SEED = 1_000_003
"""Seed of the patches that the network is judged on; training draws from `--seed`."""
HELD_OUT_PATCHES = 48


def main(arguments: list[str] | None = None) -> int:
    """Train, judge on held-out patches and write the checkpoint; returns the exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    parser.add_argument(
        "--steps", type=_positive, default=FitSettings.steps, help="training steps (%(default)s)"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="random seed (%(default)s)")
    options = parser.parse_args(arguments)
    if options.seed == HELD_OUT_SEED:
        parser.error(f"--seed {HELD_OUT_SEED} draws the held-out patches; choose another")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    settings = FitSettings(steps=options.steps, seed=options.seed)
    start = time.perf_counter()
    model, losses = fit(settings, _Progress(settings.steps, start))
    scores = evaluate(model, make_patches(HELD_OUT_SEED, HELD_OUT_PATCHES, settings.patch_px))
    facts = training_facts(settings, losses, scores)
    save_checkpoint(model, options.out, metadata=facts)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"wrote {options.out} ({time.perf_counter() - start:.0f} s)")
    return 0


def training_facts(settings: FitSettings, losses: list[float], scores: Scores) -> dict[str, str]:
    """What the checkpoint's header says about how it was made."""
    last = losses[-50:]
    return {
        "title": "synthetic demo, no medical model",
        "training_data": "synthetic textures (sshr_deploy.train.textures); no tissue",
        "classes": ", ".join(CLASS_NAMES),
        "steps": str(settings.steps),
        "seed": str(settings.seed),
        "final_loss": f"{sum(last) / len(last):.4f} (mean of the last {len(last)} steps)",
        "held_out_patches": f"{HELD_OUT_PATCHES} (seed {HELD_OUT_SEED})",
        "held_out_label_accuracy": f"{scores.label_accuracy:.4f}",
        "held_out_pixel_accuracy": f"{scores.pixel_accuracy:.4f}",
        "held_out_mean_iou": f"{scores.mean_iou:.4f}",
        "versions": f"torch {torch.__version__}, numpy {np.__version__}, opencv {cv2.__version__}",
    }


class _Progress:
    """Prints the mean loss of every 20 steps, with the time left."""

    def __init__(self, steps: int, start: float) -> None:
        self.steps, self.start = steps, start
        self.recent: list[float] = []

    def __call__(self, step: int, loss: float) -> None:
        self.recent = [*self.recent[-19:], loss]
        if (step + 1) % 20 and step + 1 != self.steps:
            return
        passed = time.perf_counter() - self.start
        left = passed / (step + 1) * (self.steps - step - 1)
        mean = sum(self.recent) / len(self.recent)
        print(
            f"step {step + 1}/{self.steps}  loss {mean:.4f}  {passed:.0f} s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
