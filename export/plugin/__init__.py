"""Experimental: the fused HFRM as a TensorRT plugin; nothing in the product uses it."""
