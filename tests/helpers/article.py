"""The published rule for hints."""

import torch
from einops import rearrange


def by_the_article(clip, k):
    """The network's input without its noisy part, as the article writes it: ``f c h w`` to ``f (1 + c) h w``."""
    video = rearrange(clip, "f c h w -> 1 c f h w")
    held = video[:, :, 0::k].repeat_interleave(k, 2)[:, :, : len(clip)]
    return rearrange(torch.cat([torch.zeros_like(video[:, :1]), held], dim=1), "1 c f h w -> f c h w")
