"""WSInfer's `run_inference` on given tiles; run by the Python of its own environment.

    python wsinfer_runner.py JOB.json OUT [classifier]

It is the second half of `wsinfer run`; the first, which looks for tissue, is left out, because all
peers are given the same tiles. WSInfer knows classifiers only: one value a class and tile goes into
a CSV file. For label maps its model is wrapped, and the wrapper keeps them. Its transform is set to
average pixels, so that the network sees what it sees in the others. Nothing of the model zoo is
asked for, so that it starts without a network. Imports nothing of this project.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job; the last line on stdout is what was found, as JSON."""
    job, out = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    classifier = sys.argv[3:] == ["classifier"]
    import h5py
    import numpy as np
    import torch
    import wsinfer
    import wsinfer_zoo.client as zoo
    from torchvision.transforms import InterpolationMode
    from wsinfer.modellib import run_inference as runner

    slides, results = out / "slides", out / "results"
    slides.mkdir()
    (slides / Path(job["slide"]).name).symlink_to(job["slide"])
    (results / "patches").mkdir(parents=True)
    with h5py.File(results / "patches" / f"{Path(job['slide']).stem}.h5", "w") as file:
        coords = file.create_dataset("coords", data=np.asarray(job["corners_l0_px"], np.int64))
        coords.attrs.update({"patch_size": job["side_l0_px"], "patch_level": 0})

    labels: list[Any] = []

    class Labelling(torch.nn.Module):
        """Gives logits, as WSInfer wants them, and keeps the label maps."""

        def __init__(self) -> None:
            super().__init__()
            load: Any = torch.jit.load
            self.network = load(job["network"], map_location="cpu")

        def forward(self, x: Any) -> Any:
            """Normalised patches [B, 3, 224, 224] -> logits [B, N]."""
            scores, logits = self.network(x)
            labels.append(scores.argmax(1).to(torch.uint8).numpy())
            return logits

    names = [f"class {label}" for label in range(job["classes"])]
    resize = {"size": job["patch_px"], "interpolation": InterpolationMode.BOX}
    steps = [
        zoo.TransformConfigurationItem("Resize", resize),
        zoo.TransformConfigurationItem("ToTensor", None),
        zoo.TransformConfigurationItem("Normalize", {"mean": job["mean"], "std": job["std"]}),
    ]
    config = zoo.ModelConfiguration(
        "sshr", len(names), names, job["patch_px"], job["target_mpp_um"], steps
    )
    model = runner.LocalModelTorchScript(config, job["classifier"])
    network = runner.get_pretrained_torch_module(model) if classifier else Labelling()
    with torch.inference_mode():
        blank = torch.zeros(job["batch"], 3, job["patch_px"], job["patch_px"])
        for _ in range(2):  # first calls of TorchScript take longer, and are of the start-up
            network(blank)
    labels.clear()
    runner.get_pretrained_torch_module = lambda model: network  # noqa: ARG005
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        failed = runner.run_inference(slides, results, model, job["batch"], job["workers"])
    work_s = time.perf_counter() - start
    if any(failed):
        sys.exit(f"WSInfer failed on {failed}")
    if labels and job["keeps_labels"]:
        np.save(out / "labels.npy", np.concatenate(labels))
    version = f"wsinfer {wsinfer.__version__}, torch {torch.__version__}"
    tiles = len(next((results / "model-outputs-csv").glob("*.csv")).read_text().splitlines()) - 1
    print(json.dumps({"work_s": work_s, "tiles": tiles, "version": version}))


if __name__ == "__main__":
    main()
