"""Adaptation of a network's batch norms to unlabelled tissue of another scanner or stain."""
