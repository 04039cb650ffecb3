"""A package, so that no other one that is called tests and is installed comes before it."""
