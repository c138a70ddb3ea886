"""A small pseudo-3-D U-Net and its files."""

import json
import re

import torch
from einops import rearrange
from pack.modules.checkpoints.pseudo3d import new_inside
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.slots import fill, norms, swap
from safetensors.torch import save_file
from tiny_motion import randomized

HEADS, FRAMES = 4, 5
SMALL = UNetConfig(
    in_channels=9,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    transformer_depth=(1, 0),
    transformer_depth_output=(1, 1, 0, 0),
    num_heads=HEADS,
    context_dim=16,
)


def spelt(key):
    """A key of this pack's U-Net with one level more than ``down`` blocks as diffusers spells it, for ``SMALL``."""
    for ours, theirs in RENAMES:
        key = re.sub(ours, theirs, key)
    return key


RENAMES = (
    (r"^input_blocks\.0\.0\.", "conv_in."),
    (r"^time_embed\.0\.", "time_embedding.linear_1."),
    (r"^time_embed\.2\.", "time_embedding.linear_2."),
    (r"^out\.0\.", "conv_norm_out."),
    (r"^out\.2\.", "conv_out."),
    (r"^input_blocks\.1\.0\.", "down_blocks.0.resnets.0."),
    (r"^input_blocks\.1\.1\.", "down_blocks.0.attentions.0."),
    (r"^input_blocks\.2\.0\.op\.", "down_blocks.0.downsamplers.0.conv."),
    (r"^input_blocks\.3\.0\.", "down_blocks.1.resnets.0."),
    (r"^middle_block\.0\.", "mid_block.resnets.0."),
    (r"^middle_block\.1\.", "mid_block.attentions.0."),
    (r"^middle_block\.2\.", "mid_block.resnets.1."),
    (r"^output_blocks\.1\.1\.conv\.", "up_blocks.0.upsamplers.0.conv."),
    (r"^output_blocks\.([01])\.0\.", r"up_blocks.0.resnets.\1."),
    (r"^output_blocks\.2\.0\.", "up_blocks.1.resnets.0."),
    (r"^output_blocks\.3\.0\.", "up_blocks.1.resnets.1."),
    (r"^output_blocks\.2\.1\.", "up_blocks.1.attentions.0."),
    (r"^output_blocks\.3\.1\.", "up_blocks.1.attentions.1."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time_emb_proj."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.skip_connection\.", ".conv_shortcut."),
)


def file_state(*, plain=False, seed=0):
    """The state dict of a file for ``SMALL``; ``plain``: temporal layers as they are before training."""
    unet, inside = randomized(UNet(SMALL), seed), randomized(new_inside(SMALL), seed + 1)
    if plain:
        inside.zero()
    state = {}
    for key, value in unet.state_dict().items():
        owner, member = key.rsplit(".", 1)
        convolution = isinstance(unet.get_submodule(owner), torch.nn.Conv2d) and not owner.endswith(("proj_in", "proj_out"))
        state[spelt(f"{owner}.spatial_conv.{member}" if convolution else key)] = value
    for key, value in inside.state_dict().items():
        state[spelt(key.removeprefix("layers.").replace("/", "."))] = value
    return {key: value.detach().clone() for key, value in state.items()}


def folder(tmp_path, state, *, suffix=".bin", config=True, name="toy"):
    path = tmp_path / name / "unet" / f"diffusion_pytorch_model{suffix}"
    path.parent.mkdir(parents=True)
    torch.save(state, path) if suffix == ".bin" else save_file(state, path)
    if config:
        (path.parent / "config.json").write_text(
            json.dumps({"_class_name": "UNetPseudo3DConditionModel", "attention_head_dim": HEADS})
        )
    return path


def joined(model):
    """Its network as a function of a clip: ``b c f h w``, ``b``, ``b k d`` to ``b o f h w``."""
    unet, inside = (network.eval().requires_grad_(False) for network in model.build())
    fill(unet, {})
    inside.join(unet)

    def over_the_clip(inner):
        def forward(x):
            height = x.shape[-2]
            tall = inner(rearrange(x, "(b f) c h w -> b c (f h) w", f=inside.frames.count))
            return rearrange(tall, "b c (f h) w -> (b f) c h w", h=height)

        return forward

    for norm in norms(unet):
        swap(norm, over_the_clip)

    def run(x, t, context):
        f = x.shape[2]
        with inside.during(inside.frames_for(torch.arange(f))):
            flat = unet(rearrange(x, "b c f h w -> (b f) c h w"), t.repeat_interleave(f), context.repeat_interleave(f, 0))
        return rearrange(flat, "(b f) c h w -> b c f h w", f=f)

    return run, unet
