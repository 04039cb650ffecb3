"""TIAToolbox's `SemanticSegmentor` on given tiles; run by the Python of its own environment.

    python tiatoolbox_runner.py JOB.json OUT [onnx]

It reads, batches, merges and writes as it always does; the network is a module of ours around the
TorchScript file, or around the ONNX graph by ONNX Runtime. Of its patches only the given ones are
left, where its own tissue mask would choose others. It shrinks tiles by cubic interpolation, which
takes longer than averaging and moves a tenth of the labels; here it averages, so that the network
sees what it sees in the others. Imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job; the last line on stdout is what was found, as JSON."""
    job, out = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    by_onnx = sys.argv[3:] == ["onnx"]
    import cv2
    import numpy as np
    import tiatoolbox
    import torch
    import zarr
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC
    from tiatoolbox.utils import transforms

    resize = transforms.imresize
    transforms.imresize = lambda **options: resize(**options | {"interpolation": cv2.INTER_AREA})
    scores_of, library = _by_onnxruntime(job) if by_onnx else _by_torch(job)
    blank = torch.zeros(job["batch"], job["patch_px"], job["patch_px"], 3, dtype=torch.uint8)
    with torch.inference_mode():
        for _ in range(2):  # first calls of TorchScript take longer, and are of the start-up
            scores_of(blank)

    class Model(ModelABC):  # type: ignore[misc]
        """Scores of each class at each pixel; a pixel gets the label of the best."""

        def forward(self) -> None:
            """Not used."""

        @staticmethod
        def infer_batch(_: Any, batch_data: Any, *, device: str) -> Any:  # noqa: ARG004
            """uint8 [B, 224, 224, 3] -> float32 [B, 224, 224, N]."""
            with torch.inference_mode():
                return scores_of(batch_data).permute(0, 2, 3, 1).contiguous().numpy()

        @staticmethod
        def postproc(image: Any) -> Any:
            """Scores -> labels."""
            return np.argmax(image, axis=-1)

    class Segmentor(SemanticSegmentor):  # type: ignore[misc]
        """On the given tiles."""

        def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
            """As it is, with only these patches."""
            loader = super().get_dataloader(*args, **kwargs)
            data, given = loader.dataset, {tuple(place) for place in job["places"]}
            corners = (data.inputs[:, 1::-1] // job["patch_px"]).tolist()
            kept = np.array([tuple(place) in given for place in corners])
            data.full_outputs = data.outputs
            data.inputs, data.outputs = data.inputs[kept], data.outputs[kept]
            self.output_locations = data.outputs
            return loader

    side, mpp = [job["patch_px"]] * 2, {"units": "mpp", "resolution": job["target_mpp_um"]}
    segmentor = Segmentor(
        Model(), batch_size=job["batch"], num_workers=job["workers"], verbose=False
    )
    start = time.perf_counter()
    written = segmentor.run(
        [Path(job["slide"])],
        patch_mode=False,
        ioconfig=IOSegmentorConfig(
            input_resolutions=[mpp], output_resolutions=[mpp], patch_input_shape=side,
            patch_output_shape=side, stride_shape=side, save_resolution=mpp,
        ),
        auto_get_mask=False,
        wsireader_kwargs={"mpp": tuple(job["mpp_um"]), "power": None},
        device="cpu",
        output_type="zarr",
        save_dir=out / "saved",
    )  # fmt: skip
    work_s = time.perf_counter() - start
    if job["keeps_labels"]:
        saved: Any = zarr.open(next(iter(written.values())), mode="r")
        mask = np.asarray(saved["predictions"]).squeeze()
        np.save(out / "labels.npy", _tiles(np, mask, job))
    version = f"tiatoolbox {tiatoolbox.__version__}, {library}"
    found = {"work_s": work_s, "tiles": len(segmentor.output_locations), "version": version}
    print(json.dumps(found))


def _by_torch(job: dict[str, Any]) -> tuple[Any, str]:
    import torch

    network = torch.jit.load(job["network"], map_location="cpu")  # type: ignore[no-untyped-call]
    mean, std = torch.tensor(job["mean"]), torch.tensor(job["std"])

    def scores(patches: Any) -> Any:
        x = ((patches / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
        return network(x)[0]

    return scores, f"torch {torch.__version__}"


def _by_onnxruntime(job: dict[str, Any]) -> tuple[Any, str]:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(job["onnx"], options, ["CPUExecutionProvider"])
    to_scores = torch.jit.load(job["scores"], map_location="cpu")  # type: ignore[no-untyped-call]

    def scores(patches: Any) -> Any:
        found = session.run(job["outputs"], {job["input"]: patches.numpy()})
        return to_scores(*map(torch.from_numpy, found))

    return scores, f"onnxruntime {onnxruntime.__version__}"


def _tiles(np: Any, mask: Any, job: dict[str, Any]) -> Any:
    """The given tiles of a mask [H, W], those at the edge filled up: uint8 [tiles, 224, 224]."""
    side, tiles = job["patch_px"], np.zeros((len(job["places"]), *[job["patch_px"]] * 2), np.uint8)
    for tile, (row, column) in zip(tiles, job["places"], strict=True):
        part = mask[row * side : (row + 1) * side, column * side : (column + 1) * side]
        tile[: part.shape[0], : part.shape[1]] = part
    return tiles


if __name__ == "__main__":
    main()
