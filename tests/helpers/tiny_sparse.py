"""Small SparseCtrl files for ``tiny_motion.image_model``, in both layouts."""

import re
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


BLOCKS = [(level, block) for level in (0, 1) for block in (0, 1)]
# what the parts are called in Stable Diffusion's own code, for ``tiny_motion.UNET``: two levels of two blocks
LDM_PLACES = (
    (r"^conv_in", "input_blocks.0.0"),
    (r"^time_embedding.linear_1", "time_embed.0"),
    (r"^time_embedding.linear_2", "time_embed.2"),
    *((rf"^down_blocks.{level}.resnets.{block}", f"input_blocks.{1 + 3 * level + block}.0") for level, block in BLOCKS),
    *((rf"^down_blocks.{level}.attentions.{block}", f"input_blocks.{1 + 3 * level + block}.1") for level, block in BLOCKS),
    (r"^down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
    (r"^mid_block.resnets.0", "middle_block.0"),
    (r"^mid_block.attentions.0", "middle_block.1"),
    (r"^mid_block.resnets.1", "middle_block.2"),
    (r"^controlnet_down_blocks.(\d+)", r"zero_convs.\1.0"),
    (r"^controlnet_mid_block", "middle_block_out.0"),
)
LDM_LAYERS = (
    (r"^((?:input|middle)_block\S+)\.norm1\.(\w+)$", r"\1.in_layers.0.\2"),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"^((?:input|middle)_block\S+)\.norm2\.(\w+)$", r"\1.out_layers.0.\2"),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
A1111 = ((r"^controlnet_cond_embedding", "input_hint_block.0"),)
CONTROLNET = (  # eight convolutions with SiLU between them
    (r"^controlnet_cond_embedding.conv_in", "input_hint_block.0"),
    *((rf"^controlnet_cond_embedding.blocks.{place}", f"input_hint_block.{2 * place + 2}") for place in range(6)),
    (r"^controlnet_cond_embedding.conv_out", "input_hint_block.14"),
    *A1111,
)


def in_ldm_names(state, entrance=A1111, prefix=""):
    """The same in the names of Stable Diffusion's own code, as sd-webui-controlnet and Advanced-ControlNet take it."""
    renamed = {}
    for key, value in state.items():
        inside = () if ".transformer_blocks." in key else LDM_LAYERS
        for pattern, replacement in () if ".motion_modules." in key else (*LDM_PLACES, *entrance, *inside):
            key = re.sub(pattern, replacement, key)
        renamed[prefix + key] = value
    return renamed


def sparse_file(folder: Path, name="v3_sd15_sparsectrl_rgb.safetensors", config=RGB, **options) -> Path:
    """A safetensors file."""
    path = folder / name
    save_file(sparse_state(config, **options), path)
    return path
