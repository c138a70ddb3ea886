"""Motion modules: the arithmetic of one."""

import math

import pytest
import torch
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.transformer import TemporalConfig, TemporalTransformer
from tiny_motion import randomized

CHANNELS, FRAMES = 32, 5


def definition(state, x, frames, *, norm_over_clip=False):
    """AnimateDiff's motion module in float64 with loops, from the paper's appendix and the published key names alone.

    x: (clips * frames, channels, height, width).
    """
    p = {key: value.double() for key, value in state.items()}
    x = x.double()
    total, channels, height, width = x.shape
    clips, heads, groups = total // frames, 8, 32

    def linear(name, value):
        out = torch.einsum("ij,...j->...i", p[name + ".weight"], value)
        return out + p[name + ".bias"] if name + ".bias" in p else out

    def layer_norm(name, value):
        mean = value.mean(-1, keepdim=True)
        variance = (value - mean).pow(2).mean(-1, keepdim=True)
        return (value - mean) / (variance + 1e-5).sqrt() * p[name + ".weight"] + p[name + ".bias"]

    pe = torch.zeros(frames, channels, dtype=torch.float64)
    for position in range(frames):
        for pair in range(channels // 2):
            angle = position * math.exp(-2 * pair * math.log(10000.0) / channels)
            pe[position, 2 * pair], pe[position, 2 * pair + 1] = math.sin(angle), math.cos(angle)

    normed = torch.empty_like(x)
    size = channels // groups
    for clip in range(clips):
        mine = x[clip * frames : (clip + 1) * frames]
        for frame in range(frames):
            for group in range(groups):
                part = slice(group * size, (group + 1) * size)
                seen = mine[:, part] if norm_over_clip else mine[frame, part]
                scaled = (mine[frame, part] - seen.mean()) / (seen.var(unbiased=False) + 1e-6).sqrt()
                weight, bias = p["norm.weight"][part, None, None], p["norm.bias"][part, None, None]
                normed[clip * frames + frame, part] = scaled * weight + bias

    out = x.clone()
    for clip in range(clips):
        for row in range(height):
            for column in range(width):
                tokens = linear("proj_in", normed[clip * frames : (clip + 1) * frames, :, row, column])
                block = "transformer_blocks.0."
                for index in range(2):
                    name = f"{block}attention_blocks.{index}."
                    told = layer_norm(f"{block}norms.{index}", tokens) + pe
                    q, k, v = (linear(name + part, told) for part in ("to_q", "to_k", "to_v"))
                    mixed = torch.zeros_like(tokens)
                    wide = channels // heads
                    for head in range(heads):
                        mine = slice(head * wide, (head + 1) * wide)
                        logits = q[:, mine] @ k[:, mine].T / math.sqrt(wide)
                        weights = (logits - logits.amax(1, keepdim=True)).exp()
                        mixed[:, mine] = weights / weights.sum(1, keepdim=True) @ v[:, mine]
                    tokens = tokens + linear(name + "to_out.0", mixed)
                hidden, gate = linear(f"{block}ff.net.0.proj", layer_norm(f"{block}ff_norm", tokens)).chunk(2, -1)
                gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
                tokens = tokens + linear(f"{block}ff.net.2", hidden * gelu)
                out[clip * frames : (clip + 1) * frames, :, row, column] += linear("proj_out", tokens)
    return out


@pytest.fixture
def module():
    return randomized(TemporalTransformer(CHANNELS, TemporalConfig()), seed=1).eval()


@pytest.fixture
def clips():
    """Two clips whose frames differ in brightness, so that the scope of a norm shows."""
    generator = torch.Generator().manual_seed(2)
    brightness = torch.linspace(-2, 2, 2 * FRAMES)[:, None, None, None]
    return torch.randn(2 * FRAMES, CHANNELS, 3, 2, generator=generator) * (1 + brightness.abs()) + brightness


def test_a_module_is_what_the_paper_defines(module, clips):
    wanted = definition(module.state_dict(), clips, FRAMES)
    with torch.no_grad():
        given = module(clips, Frames.of(FRAMES))
    torch.testing.assert_close(given.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_a_module_is_diffusers_when_its_norm_sees_one_frame(module, clips):
    """diffusers takes the module's norm over all frames of a clip, the original over one; with that switched they are the same."""
    unet_motion_model = pytest.importorskip("diffusers.models.unets.unet_motion_model")
    theirs = unet_motion_model.AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=CHANNELS // 8,
        in_channels=CHANNELS,
        norm_num_groups=32,
        cross_attention_dim=None,
        attention_bias=False,
        activation_fn="geglu",
        num_layers=1,
        double_self_attention=True,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    ).eval()
    renames = (
        (".norms.0", ".norm1"),
        (".norms.1", ".norm2"),
        (".ff_norm", ".norm3"),
        ("attention_blocks.0", "attn1"),
        ("attention_blocks.1", "attn2"),
    )

    def theirs_name(key):
        for old, new in renames:
            key = key.replace(old, new)
        return key

    missing, extra = theirs.load_state_dict({theirs_name(key): value for key, value in module.state_dict().items()}, strict=False)
    assert not extra and all("pos_embed" in key for key in missing)

    over_clip = definition(module.state_dict(), clips, FRAMES, norm_over_clip=True)
    with torch.no_grad():
        out = theirs(clips, num_frames=FRAMES)
    torch.testing.assert_close(out.double(), over_clip, rtol=0, atol=1e-5 * float(over_clip.abs().max()))

    class OneFrame(torch.nn.Module):
        """Their norm, given one frame at a time."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            b, c, f, h, w = x.shape
            flat = self.inner(x.permute(0, 2, 1, 3, 4).reshape(b * f, c, h, w))
            return flat.reshape(b, f, c, h, w).permute(0, 2, 1, 3, 4)

    theirs.norm = OneFrame(theirs.norm)
    with torch.no_grad():
        switched, ours = theirs(clips, num_frames=FRAMES), module(clips, Frames.of(FRAMES))
    torch.testing.assert_close(ours, switched, rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert (out - ours).abs().max() > 1e-2, "the two scopes must differ on this clip, or this test says nothing"
