"""Temporal modules: what lets the frames of a clip see each other."""
