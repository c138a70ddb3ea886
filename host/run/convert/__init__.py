"""Graphs made for AnimateDiff-Evolved, Advanced-ControlNet and FizzNodes, as graphs of this pack's nodes."""
