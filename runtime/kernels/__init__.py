"""GPU kernels: one folder an operation.

    hfrm_cam/       HFRM plus its CAM head for inference
    hfrm_pool/      the two weighted means of HFRM for training, with gradients
    cam_to_mask/    CAMs and probabilities -> label map

In each, `naive.py` is the specification (plain operations), `triton.py` the kernel, `op.py` what
PyTorch users call, and `plan.py` what a launch needs (torch-free: the edge launches cubins with
it). `naive.py`, `triton.py` and `op.py` import torch or Triton; the rest of the runtime never
imports them.
"""
