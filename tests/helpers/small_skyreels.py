"""Weights of a tiny SkyReels-V2."""

import torch


def fps_weights(width=8):
    generator = torch.Generator().manual_seed(2)
    shapes = {"embedding.weight": (2, width), "projection.0.weight": (width, width), "projection.0.bias": (width,)}
    shapes |= {"projection.2.weight": (6 * width, width), "projection.2.bias": (6 * width,)}
    return {f"fps_{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
