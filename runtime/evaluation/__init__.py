"""Evaluation of a network against label maps; whatever runs it is a `Session`."""
