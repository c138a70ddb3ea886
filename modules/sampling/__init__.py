"""Noise levels per frame, the loop over them, and every sampler of this pack."""
