"""Who does the slide: the product, and what a user would take instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sshr_deploy
from sshr_deploy.benchmarks.peers.set_up import how_to_set_up, is_set_up, python_of
from sshr_deploy.errors import UsageError

_PACKAGE = "sshr_deploy.benchmarks.peers"
_FOLDER = Path(__file__).resolve().parent.parent / "peers"


@dataclass(frozen=True)
class SlideContender:
    """A program that does the tiles of a job.

    It is called with the job's file, a folder for its files and `arguments`. Its last line on
    stdout is JSON: `work_s`, without start-up; `tiles`; `version`, of what it runs by; ours also
    `tiles_s`, from the first tile read to the last label map, and `mask_agreement`. It leaves
    labels.npy, uint8 [tiles, 224, 224], where it `has_masks` and the job `keeps_labels`.
    """

    name: str
    program: str
    """A module of `benchmarks.peers`, or a file there for the Python of another environment."""
    arguments: tuple[str, ...] = ()
    venv: str | None = None
    """Name of its environment, see `peers.set_up`; None for this one."""
    needs_checkpoint: bool = True
    has_masks: bool = True
    does: str = ""
    lacks: str = ""
    """What of the product it does not do."""
    maps_alone: bool = False
    """Label maps in memory are all that it makes, so that our tiles alone are what compares."""

    def cannot_run(self, *, has_checkpoint: bool) -> str | None:
        """Why it cannot be measured here, in one line."""
        if self.venv is not None and not is_set_up(self.venv):
            return f"it is not set up: {how_to_set_up(self.venv)}"
        if self.needs_checkpoint and not has_checkpoint:
            return "it needs the network in PyTorch: give `checkpoint`"
        return None

    def command(self, job: Path, out: Path) -> list[str]:
        """The program and its arguments."""
        if self.venv is None:
            start = [sys.executable, "-m", f"{_PACKAGE}.{self.program}"]
        else:
            start = [str(python_of(self.venv)), str(_FOLDER / f"{self.program}.py")]
        return [*start, str(job), str(out), *self.arguments]

    def environ(self, threads: int | None, home: Path) -> Mapping[str, str]:
        """Its environment: the processor alone, `threads` threads (None: as it likes), no network.

        What peers keep in the user's folder, such as a list of fonts, goes to `home`.
        """
        environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
        environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "WSINFER_FORCE_CPU": "1"}
        if threads is not None:
            environ["OMP_NUM_THREADS"] = str(threads)
        if self.venv is not None:
            return environ | {"HOME": str(home)}
        packages = str(Path(sshr_deploy.__file__).parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        return environ | {"PYTHONPATH": os.pathsep.join(filter(None, (packages, inherited)))}


OURS = SlideContender(
    "sshr-deploy",
    "ours",
    needs_checkpoint=False,
    does="finds the tissue; mask as a pyramid, overlays, regions, areas, report",
)

_MAPS_ONLY = "tissue, areas, overlays, regions; the whole mask is in memory"

PEERS = (
    SlideContender(
        "OpenSlide loop, ONNX Runtime",
        "loops",
        ("openslide", "onnx"),
        needs_checkpoint=False,
        does="label maps with the bundle's FP32 graph",
        lacks=_MAPS_ONLY,
        maps_alone=True,
    ),
    SlideContender(
        "OpenSlide loop, PyTorch",
        "loops",
        ("openslide", "pytorch"),
        does="label maps with the network in eager mode",
        lacks=_MAPS_ONLY,
        maps_alone=True,
    ),
    SlideContender(
        "OpenSlide loop, published forward",
        "loops",
        ("openslide", "published"),
        does="label maps, one tile a call, all four heads",
        lacks=_MAPS_ONLY,
        maps_alone=True,
    ),
    SlideContender(
        "DataLoader, ONNX Runtime",
        "loops",
        ("dataloader", "onnx"),
        needs_checkpoint=False,
        does="label maps with the bundle's FP32 graph; reads in processes of their own",
        lacks=_MAPS_ONLY,
        maps_alone=True,
    ),
    SlideContender(
        "DataLoader, PyTorch",
        "loops",
        ("dataloader", "pytorch"),
        does="label maps with the network in eager mode; reads in processes of their own",
        lacks=_MAPS_ONLY,
        maps_alone=True,
    ),
    SlideContender(
        "WSInfer",
        "wsinfer_runner",
        venv="wsinfer",
        does="one value a class and tile as CSV; label maps by a wrapper of ours",
        lacks=_MAPS_ONLY + "; its own tissue search is left out",
    ),
    SlideContender(
        "WSInfer, classifier only",
        "wsinfer_runner",
        ("classifier",),
        venv="wsinfer",
        has_masks=False,
        does="one value a class and tile as CSV, as it is made for",
        lacks="label maps, and all that follows from them; its own tissue search is left out",
    ),
    SlideContender(
        "TIAToolbox, TorchScript",
        "tiatoolbox_runner",
        venv="tiatoolbox",
        does="merges overlapping scores; mask as Zarr",
        lacks="areas, overlays, regions; its own tissue search is left out",
    ),
    SlideContender(
        "TIAToolbox, ONNX Runtime",
        "tiatoolbox_runner",
        ("onnx",),
        venv="tiatoolbox",
        does="merges overlapping scores; mask as Zarr; the bundle's FP32 graph",
        lacks="areas, overlays, regions; its own tissue search is left out",
    ),
)


def peers_named(wanted: str) -> tuple[SlideContender, ...]:
    """Peers whose names contain one of the words, with commas between; all for an empty text.

    Raises:
        UsageError: a word is in no name.
    """
    words = [word.strip().lower() for word in wanted.split(",") if word.strip()]
    for word in words:
        if not any(word in peer.name.lower() for peer in PEERS):
            names = "; ".join(peer.name for peer in PEERS)
            raise UsageError(f"`peers` {word!r} is in no name; there are: {names}")
    named = (peer for peer in PEERS if any(word in peer.name.lower() for word in words))
    return tuple(named) if words else PEERS
