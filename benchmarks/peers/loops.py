"""Plain loops over given tiles, as one writes them in an afternoon: OpenSlide or a DataLoader.

    python -m sshr_deploy.benchmarks.peers.loops JOB.json OUT openslide|dataloader WAY

The network by one of three ways: "onnx", the bundle's graph by ONNX Runtime with its default
options; "pytorch", the modules of this project; "published", one patch a call with all four heads,
as the published inference has it. No tissue is looked for and nothing but label maps is kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

Patches = NDArray[np.uint8]
Labels = Callable[[Patches], NDArray[np.uint8]]


def main() -> None:
    """Do the job; the last line on stdout is what was found, as JSON."""
    file, folder, loop, way = sys.argv[1:]
    job = json.loads(Path(file).read_text("utf-8"))
    ways = {"onnx": by_onnxruntime, "pytorch": by_pytorch, "published": published}
    feed = {"openslide": openslide_batches, "dataloader": dataloader_batches}[loop]
    labels_of, library = ways[way](job)
    blank = np.zeros((job["batch"], job["patch_px"], job["patch_px"], 3), np.uint8)
    labels_of(blank)  # first calls take longer, and are of the start-up
    start = time.perf_counter()
    labels = np.concatenate([labels_of(batch) for batch in feed(job)])
    work_s = time.perf_counter() - start
    if job["keeps_labels"]:
        np.save(Path(folder) / "labels.npy", labels)
    version = f"openslide {openslide.__library_version__}, {library}"
    print(json.dumps({"work_s": work_s, "tiles": len(labels), "version": version}))


def read_tile(slide: openslide.OpenSlide, corner: tuple[int, int], job: dict[str, Any]) -> Patches:
    """A tile from the level that suits, averaged to RGB [224, 224, 3]."""
    side_px, patch_px = job["side_px"], job["patch_px"]
    picture = slide.read_region((corner[0], corner[1]), job["level"], (side_px, side_px)).convert(
        "RGB"
    )
    tile = cv2.resize(np.asarray(picture), (patch_px, patch_px), interpolation=cv2.INTER_AREA)
    return tile.astype(np.uint8, copy=False)


def openslide_batches(job: dict[str, Any]) -> Iterator[Patches]:
    """Tile after tile, the network waiting meanwhile."""
    with openslide.OpenSlide(job["slide"]) as slide:
        corners, batch = job["corners_l0_px"], job["batch"]
        for first in range(0, len(corners), batch):
            yield np.stack([read_tile(slide, c, job) for c in corners[first : first + batch]])


def dataloader_batches(job: dict[str, Any]) -> Iterable[Patches]:
    """By the worker processes of a `torch.utils.data.DataLoader`."""
    from torch.utils.data import DataLoader

    tiles: Any = Tiles(job)
    loader: Iterable[Patches] = DataLoader(
        tiles, batch_size=job["batch"], num_workers=job["workers"], collate_fn=np.stack
    )
    yield from loader


class Tiles:
    """A dataset of the job's tiles; each worker process opens the slide for itself."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        return len(self._job["corners_l0_px"])

    def __getitem__(self, index: int) -> Patches:
        if self._slide is None:
            self._slide = openslide.OpenSlide(self._job["slide"])
        return read_tile(self._slide, self._job["corners_l0_px"][index], self._job)


def by_onnxruntime(job: dict[str, Any]) -> tuple[Labels, str]:
    """The bundle's graph; label maps one by one in OpenCV, without PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(job["onnx"], options, ["CPUExecutionProvider"])

    def labels(patches: Patches) -> NDArray[np.uint8]:
        *cams, prob = session.run(job["outputs"], {job["input"]: patches})
        maps = [label_map([cam[i] for cam in cams], prob[i], job) for i in range(len(patches))]
        return np.stack(maps)

    return labels, f"onnxruntime {onnxruntime.__version__}"


def label_map(
    cams: Sequence[NDArray[np.float32]], prob: NDArray[np.float32], job: dict[str, Any]
) -> NDArray[np.uint8]:
    """Three times CAMs [N, 28, 28] and probabilities [N] -> labels [224, 224], as published."""
    scores = np.zeros((len(prob), job["patch_px"], job["patch_px"]), np.float32)
    for label in range(len(prob)):
        if prob[label] <= job["threshold"] and label != prob.argmax():
            continue
        for cam, weight in zip(cams, job["weights"], strict=True):
            up = cv2.resize(cam[label], scores.shape[1:], interpolation=cv2.INTER_LINEAR)
            scores[label] += weight * (up - up.min()) / (up.max() - up.min() + job["epsilon"])
    labels: NDArray[np.uint8] = scores.argmax(0).astype(np.uint8)
    return labels


def by_pytorch(job: dict[str, Any]) -> tuple[Labels, str]:
    """The network in eager mode, batch by batch."""
    import torch

    from sshr_deploy.benchmarks.peers.torchscript import Scores
    from sshr_deploy.model.checkpoint import load_checkpoint
    from sshr_deploy.model.inference import Inference

    torch.set_num_threads(job["threads"])
    network = Inference(load_checkpoint(Path(job["checkpoint"]))).eval()
    scores = Scores(job["weights"], job["threshold"])

    @torch.inference_mode()
    def labels(patches: Patches) -> NDArray[np.uint8]:
        found = scores(*network(torch.from_numpy(patches))).argmax(1).to(torch.uint8)
        maps: NDArray[np.uint8] = found.numpy()
        return maps

    return labels, f"torch {torch.__version__}"


def published(job: dict[str, Any]) -> tuple[Labels, str]:
    """All four heads, patch by patch."""
    import torch

    from sshr_deploy.benchmarks.peers.torchscript import Scores
    from sshr_deploy.model.checkpoint import load_checkpoint
    from sshr_deploy.model.normalisation import normalise

    torch.set_num_threads(job["threads"])
    network = load_checkpoint(Path(job["checkpoint"])).eval()
    scores = Scores(job["weights"], job["threshold"])

    @torch.inference_mode()
    def labels(patches: Patches) -> NDArray[np.uint8]:
        found = []
        for patch in patches:
            cams = network(normalise(patch[None]))
            prob = network.logits(cams)[3].sigmoid()
            kept = map(torch.relu, (cams.cam_28_1, cams.cam_28_2, cams.cam_deep))
            found.append(scores(*kept, prob).argmax(1).to(torch.uint8).numpy())
        return np.concatenate(found)

    return labels, f"torch {torch.__version__}"


if __name__ == "__main__":
    main()
