"""Checkpoint to bundle: graph, precision, qualification. Needs the extra `export`."""
