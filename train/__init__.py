"""Training: synthetic textures and a small fit for the demo checkpoint."""
