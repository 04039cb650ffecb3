"""Training: datasets, recipes, the loop; and the synthetic textures of the demo."""
