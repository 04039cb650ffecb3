"""Everything that needs an NVIDIA GPU, in one run (`make gpu-check`)."""
