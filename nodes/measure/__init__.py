"""Measuring and looking."""
