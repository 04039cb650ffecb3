"""What runs at the edge: sessions, slides, masks, results. Never imports torch."""
