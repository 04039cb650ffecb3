"""Checkpoint to bundle; needs the extra `export`.

bundle.py leads: reference.py (PyTorch's answers for real patches), artifacts.py (a graph for each
precision and target, as a job.py), proof.py (run or built on this machine before it counts).

    graph/          the network as ONNX: written, typed FP16 and BF16, edited, timed
    int8/           8-bit graphs: ranges, Q/DQ pairs, the search for the layers that stay wider
    plugin/         experimental: the kernel `hfrm_cam` in TensorRT; nothing in the product uses it
    qualification/  the patches that every graph is compared on, where the user names none
"""
