"""The two means that HFRM needs in training, mean(F) and mean(F * S), with their gradients."""
