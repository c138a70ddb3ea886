"""Small SparseCtrl files for ``tiny_motion.image_model``, in both layouts."""

from dataclasses import replace
from pathlib import Path

import torch
from pack.modules.checkpoints.sparsectrl import released_state
from pack.modules.control.sparsectrl import STEM, SparseConfig, SparseControl
from pack.modules.temporal.positions import sinusoid
from safetensors.torch import save_file
from tiny_motion import UNET, in_diffusers_layout, randomized

HEADS = replace(UNET, num_heads=8)  # of SD1.5, which a file does not tell
RGB = SparseConfig(HEADS)
PIXELS = SparseConfig(HEADS, condition=3, stem=STEM)


def network(config=RGB, seed=3):
    """Random weights everywhere, so that it does something."""
    return randomized(SparseControl(config).eval(), seed).requires_grad_(False)


def sparse_state(config=RGB, *, seed=3, frames=32):
    """As the authors release it: position tables included."""
    made = network(config, seed)
    state = {key: value.clone() for key, value in released_state(made).items()}
    for name in made.motion.names:
        key = f"{name}.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
        state[key] = sinusoid(torch.arange(frames), made.motion.at(name).norm.num_channels)[None]
    return state


def in_diffusers_sparse(state):
    """The same as diffusers' SparseControlNetModel saves it."""
    moved = {key: value for key, value in state.items() if ".motion_modules." in key}
    return {key: value for key, value in state.items() if key not in moved} | in_diffusers_layout(moved)


def sparse_file(folder: Path, name="v3_sd15_sparsectrl_rgb.safetensors", config=RGB, **options) -> Path:
    """A safetensors file."""
    path = folder / name
    save_file(sparse_state(config, **options), path)
    return path
