"""Slides on several GPUs or machines, by Ray: the same work as in one process, in its actors."""
