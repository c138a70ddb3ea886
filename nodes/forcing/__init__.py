"""Samplers with a noise level per frame."""
