"""Who competes in a benchmark: the engines of a bundle, and what a user would pick instead."""
