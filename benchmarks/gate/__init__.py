"""A gate for CI that no busy machine can close: counted operations, and ratios within one run.

    python -m sshr_deploy.benchmarks.gate [SLIDE] [--json FILE]

What is counted is the same on every machine. Where processor time counts it is over that of a plain
version of the same, written here with NumPy and OpenCV, in turns with it. Measured with OpenCV 5.0
and NumPy 2.4.6 on one processor with AVX2: 0.7 for masks, 1 for tiles, 1.8 to 2 for stitching,
which finds the tissue as well. The limits, 2, 2.5 and 5, leave room for other processors and
releases; six times as slow is above each. Instructions are not counted: `perf stat` counts nothing
on most machines of CI.
"""
