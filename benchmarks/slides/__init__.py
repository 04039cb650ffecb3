"""The same slide, tiles and network by our pipeline and by its peers, side by side."""
