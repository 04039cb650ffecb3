"""A wider network that computes what a narrow, trained one computes.

    python -m sshr_deploy.benchmarks.widened demo/checkpoint.safetensors wide.safetensors --width 64

Trained weights of full width may not always be at hand, and random ones say nothing of how masks
agree. Here every channel of a trained network stands side by side with its copies, and a weight is
shared out among the copies that it now reads: layer by layer the same values come out, `width`
times as often (function-preserving widening; T. Chen, I. Goodfellow, J. Shlens, "Net2Net", ICLR
2016). It costs what the wide network costs and agrees as well as the narrow one does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from sshr_deploy.errors import UsageError
from sshr_deploy.model.checkpoint import CONFIG_KEY, load_checkpoint, read_header, save_checkpoint
from sshr_deploy.model.config import FULL_WIDTH, ModelConfig
from sshr_deploy.model.sshr import SSHR


def widened(model: SSHR, width: int = FULL_WIDTH) -> SSHR:
    """A network of `width` with the function of `model`, in evaluation mode.

    Raises:
        UsageError: `width` is no multiple of the model's.
    """
    narrow = model.config
    if width % narrow.width:
        raise UsageError(f"`width` {width}: give a multiple of {narrow.width}, the model's own")
    with torch.device("meta"):
        wide = SSHR(ModelConfig(narrow.num_classes, width))
    shapes = {name: tuple(tensor.shape) for name, tensor in wide.state_dict().items()}
    state = {name: _tiled(tensor, shapes[name]) for name, tensor in model.state_dict().items()}
    wide.load_state_dict(state, assign=True)
    return wide.eval()


def _tiled(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Copies of `tensor` up to `shape`; of a weight, shared out along the channels it reads."""
    copies = [wide // narrow for wide, narrow in zip(shape, tensor.shape, strict=True)]
    tiled = tensor.repeat(copies) if copies else tensor.clone()
    return tiled / copies[1] if len(copies) > 1 else tiled


def main() -> None:
    """Widen a checkpoint; its profile goes with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--width", type=int, default=FULL_WIDTH, help="default: %(default)s")
    args = parser.parse_args()
    header = {key: text for key, text in read_header(args.checkpoint).items() if key != CONFIG_KEY}
    header["widened_from"] = args.checkpoint.name
    save_checkpoint(
        widened(load_checkpoint(args.checkpoint), args.width), args.out, metadata=header
    )


if __name__ == "__main__":
    main()
