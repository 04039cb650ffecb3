"""Time of a call by engine and batch size, warm and from a cold start."""
