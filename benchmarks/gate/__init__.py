"""A gate for CI that no busy machine can close: counted operations, and ratios within one run.

    python -m sshr_deploy.benchmarks.gate [SLIDE] [--json FILE]

What is counted is the same on every machine. Where processor time counts it is over that of a plain
version of the same, written here with NumPy and OpenCV, in turns with it: a limit lies between
what was measured (0.7 to 1, stitching 2: it finds the tissue as well) and three times that.
"""
