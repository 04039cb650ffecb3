"""The machine: its processor, GPUs, threads, and child processes."""
