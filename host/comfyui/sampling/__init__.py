"""Samplers, guiders and windows of the whole model in ComfyUI."""
