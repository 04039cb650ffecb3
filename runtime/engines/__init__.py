"""Engines: which there are, which is taken here, what proves it, and where it is kept."""
