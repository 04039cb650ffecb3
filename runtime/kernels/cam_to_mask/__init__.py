"""CAMs and probabilities -> label map: upsample, normalise, weigh, gate and argmax."""
