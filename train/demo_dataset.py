"""Writes the dataset that the demo checkpoint is trained on: four synthetic textures.

    python -m sshr_deploy.train.demo_dataset demo/out/dataset

The layout is that of every dataset: training/ with labels in the names, {val,test}/{img,mask}. No
medical data: no texture is tissue.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sshr_deploy.train.textures import TexturePatch, make_patch

TRAINING_PATCHES, SPLIT_PATCHES = 1600, 48
_SPLITS = {"training": 0, "val": 1, "test": 2}  # each with a random stream of its own


def main(arguments: list[str] | None = None) -> int:
    """Write the three splits; returns the exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    for name, count in (("training", TRAINING_PATCHES), ("val", SPLIT_PATCHES)):
        text = f"{name} patches (%(default)s)"
        parser.add_argument(f"--{name}", type=_positive, default=count, metavar="N", help=text)
    options = parser.parse_args(arguments)
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty; choose another folder")
    write_dataset(options.out, options.training, options.val)
    print(options.out)
    return 0


def write_dataset(out: Path, training: int, split: int) -> None:
    """Write `training` patches of 224 px, and `split` patches with label maps for val and test.

    The same call writes the same pixels.
    """
    for name, seed in _SPLITS.items():
        rng = np.random.default_rng(seed)
        for index in range(training if name == "training" else split):
            patch = make_patch(rng)
            if name == "training":
                _save(out / name / f"{index:05d}{patch.labels.tolist()}.png", patch.rgb)
            else:
                _save_pair(out / name, f"{index:05d}.png", patch)


def _save_pair(folder: Path, name: str, patch: TexturePatch) -> None:
    _save(folder / "img" / name, patch.rgb)
    _save(folder / "mask" / name, patch.label_map)


def _save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
