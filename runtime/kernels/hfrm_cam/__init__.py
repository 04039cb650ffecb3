"""HFRM plus its CAM head for inference: the feature map is read, N channels are written."""
