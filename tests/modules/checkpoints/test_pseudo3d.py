"""Pseudo-3-D U-Nets: files as diffusers saves them, against the published network and one written out here."""

import importlib
import os
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from pack.modules.checkpoints.pseudo3d import FOLDER, load_pseudo3d, new_inside
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.slots import empty
from small_pseudo3d import FRAMES, HEADS, SMALL, file_state, folder, joined
from tiny_motion import randomized

PUBLISHED = "LONGTAKE_MASDV"  # names a folder with the published files as the package ``masdv``


class Reference:
    """The network written out as functions of its weights, in their published names; clips have five axes throughout."""

    def __init__(self, state):
        self.state = state

    def layer(self, name):
        return self.state[f"{name}.weight"], self.state.get(f"{name}.bias")

    def conv(self, name, x, stride=1):
        frames = x.shape[2]
        weight, bias = self.layer(f"{name}.spatial_conv")
        flat = F.conv2d(rearrange(x, "b c f h w -> (b f) c h w"), weight, bias, stride, weight.shape[-1] // 2)
        clip = rearrange(flat, "(b f) c h w -> b c f h w", f=frames)
        weight, bias = self.layer(f"{name}.temporal_conv")
        return F.conv3d(clip, weight[..., None, None], bias, padding=(1, 0, 0))

    def norm(self, name, x, eps=1e-5):
        return F.group_norm(x, 32, *self.layer(name), eps)

    def residual(self, name, x, emb):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = h + F.linear(F.silu(emb), *self.layer(f"{name}.time_emb_proj"))[:, :, None, None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.spatial_conv.weight" in self.state else x)

    def attend(self, name, x, context):
        q, k, v = (
            rearrange(F.linear(given, *self.layer(f"{name}.{part}")), "n t (h d) -> n h t d", h=HEADS)
            for part, given in (("to_q", x), ("to_k", context), ("to_v", context))
        )
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return F.linear(rearrange(scores @ v, "n h t d -> n t (h d)"), *self.layer(f"{name}.to_out.0"))

    def ln(self, name, x):
        return F.layer_norm(x, x.shape[-1:], *self.layer(name))

    def transformer(self, name, x, context):
        frames, height = x.shape[2], x.shape[3]
        flat = rearrange(x, "b c f h w -> (b f) c h w")
        h = F.conv2d(self.norm(f"{name}.norm", flat, 1e-6), *self.layer(f"{name}.proj_in"))
        h, block = rearrange(h, "n c h w -> n (h w) c"), f"{name}.transformer_blocks.0"
        n = self.ln(f"{block}.norm1", h)
        h = h + self.attend(f"{block}.attn1", n, n)
        h = h + self.attend(f"{block}.attn2", self.ln(f"{block}.norm2", h), context.repeat_interleave(frames, 0))
        pixels = rearrange(h, "(b f) p c -> (b p) f c", f=frames)
        n = self.ln(f"{block}.norm_temporal", pixels)
        h = rearrange(pixels + self.attend(f"{block}.attn_temporal", n, n), "(b p) f c -> (b f) p c", p=h.shape[1])
        value, gate = F.linear(self.ln(f"{block}.norm3", h), *self.layer(f"{block}.ff.net.0.proj")).chunk(2, -1)
        h = h + F.linear(value * F.gelu(gate), *self.layer(f"{block}.ff.net.2"))
        h = F.conv2d(rearrange(h, "n (h w) c -> n c h w", h=height), *self.layer(f"{name}.proj_out"))
        return x + rearrange(h, "(b f) c h w -> b c f h w", f=frames)

    def __call__(self, x, t, context):
        rates = 10000.0 ** (-torch.arange(16) / 16)
        angles = t[:, None].float() * rates
        emb = F.linear(torch.cat([angles.cos(), angles.sin()], -1), *self.layer("time_embedding.linear_1"))
        emb = F.linear(F.silu(emb), *self.layer("time_embedding.linear_2"))
        skips = [self.conv("conv_in", x)]
        h = self.transformer("down_blocks.0.attentions.0", self.residual("down_blocks.0.resnets.0", skips[0], emb), context)
        skips.append(h)
        skips.append(self.conv("down_blocks.0.downsamplers.0.conv", h, stride=2))
        h = self.residual("down_blocks.1.resnets.0", skips[-1], emb)
        skips.append(h)
        h = self.transformer("mid_block.attentions.0", self.residual("mid_block.resnets.0", h, emb), context)
        h = self.residual("mid_block.resnets.1", h, emb)
        for index in range(2):
            h = self.residual(f"up_blocks.0.resnets.{index}", torch.cat([h, skips.pop()], 1), emb)
        h = self.conv("up_blocks.0.upsamplers.0.conv", F.interpolate(h, size=(h.shape[2], *skips[-1].shape[-2:]), mode="nearest"))
        for index in range(2):
            h = self.residual(f"up_blocks.1.resnets.{index}", torch.cat([h, skips.pop()], 1), emb)
            h = self.transformer(f"up_blocks.1.attentions.{index}", h, context)
        return self.conv("conv_out", F.silu(self.norm("conv_norm_out", h)))


def given(b=2, f=FRAMES, seed=5):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, 9, f, 8, 6, generator=g), torch.tensor([411, 37])[:b], torch.randn(b, 3, 16, generator=g)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_file_computes_what_its_network_is_written_to(tmp_path, suffix):
    state = file_state()
    run, _ = joined(load_pseudo3d(folder(tmp_path, state, suffix=suffix)))
    torch.testing.assert_close(run(*given()), Reference(state)(*given()), atol=1e-5, rtol=1e-4)


def test_a_file_computes_what_the_published_network_does(tmp_path, monkeypatch):
    """make-a-stable-diffusion-video's own files, on shared random weights; within 1e-4, as is asked of it."""
    where = os.environ.get(PUBLISHED)
    if not where:
        pytest.skip(f"{PUBLISHED} is not set: it names a folder with the published files as the package masdv")
    monkeypatch.setattr(sys, "path", [where, *sys.path])
    published = importlib.import_module("masdv.models.unet_pseudo3d_condition").UNetPseudo3DConditionModel
    names = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    sizes = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": HEADS}
    theirs = published(in_channels=9, out_channels=4, **names, **sizes).eval().requires_grad_(False)
    state = file_state()
    assert set(theirs.state_dict()) == set(state)
    theirs.load_state_dict(state)
    run, _ = joined(load_pseudo3d(folder(tmp_path, state)))
    torch.testing.assert_close(run(*given()), theirs(*given()).sample, atol=1e-4, rtol=1e-4)


def test_a_static_clip_is_the_image_models_picture(tmp_path):
    """With temporal layers as they are before training; a clip that moves is another matter, as the norms run over all its frames."""
    model = load_pseudo3d(folder(tmp_path, file_state(plain=True)))
    run, unet = joined(model)
    x, t, context = given()
    static = x[:, :, :1].expand(-1, -1, FRAMES, -1, -1)
    clip, moving = run(static, t, context), run(x, t, context)
    empty(unet)
    torch.testing.assert_close(clip, unet(x[:, :, 0], t, context)[:, :, None].expand_as(clip), atol=1e-5, rtol=1e-4)
    alone = torch.stack([unet(x[:, :, f], t, context) for f in range(FRAMES)], dim=2)
    assert (moving - alone).abs().max() > 0.05


def test_frames_know_their_order_from_convolutions_alone(tmp_path):
    """The attention has no positions: with convolutions over time at rest, another order of frames is the same clip in that order."""
    state = file_state()
    for key, value in state.items():
        if key.endswith("temporal_conv.weight"):
            torch.nn.init.dirac_(value)
    run, _ = joined(load_pseudo3d(folder(tmp_path, state)))
    x, t, context = given()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(run(x[:, :, order], t, context), run(x, t, context)[:, :, order], atol=1e-5, rtol=1e-4)
    trained, _ = joined(load_pseudo3d(folder(tmp_path, file_state(), name="other")))
    assert (trained(x[:, :, order], t, context) - trained(x, t, context)[:, :, order]).abs().max() > 0.05


def test_clips_of_a_batch_do_not_know_each_other(tmp_path):
    run, _ = joined(load_pseudo3d(folder(tmp_path, file_state())))
    x, t, context = given()
    torch.testing.assert_close(run(x, t, context)[:1], run(x[:1], t[:1], context[:1]), atol=1e-5, rtol=1e-4)


def test_single_pictures_behind_a_clip_stand_alone():
    inside = randomized(new_inside(SMALL), 3).requires_grad_(False)
    convolution = inside.at("input_blocks.0.0")
    x = torch.randn(2 * 5, 32, 2, 2, generator=torch.Generator().manual_seed(0))
    both = rearrange(convolution(x, Frames(5, torch.arange(5), alone=2)), "(b f) ... -> b f ...", f=5)
    clips = rearrange(x, "(b f) ... -> b f ...", f=5)
    whole = convolution(clips[:, :3].flatten(0, 1), Frames.of(3))
    torch.testing.assert_close(both[:, :3].flatten(0, 1), whole)
    torch.testing.assert_close(both[:, 3:].flatten(0, 1), convolution(clips[:, 3:].flatten(0, 1), Frames.of(1)))


def test_a_call_that_is_broken_off_leaves_nothing_behind(tmp_path):
    model = load_pseudo3d(folder(tmp_path, file_state()))
    run, unet = joined(model)
    x, t, context = given()
    before = run(x, t, context)
    block = next(layer for layer in unet.modules() if hasattr(layer, "norm3"))
    shadow, block.ff.net[2].forward = block.ff.net[2].forward, lambda tokens: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(x, t, context)
    block.ff.net[2].forward = shadow
    torch.testing.assert_close(run(x, t, context), before, atol=0, rtol=0)
    empty(unet)
    assert not [name for layer in unet.modules() for name in layer.__dict__ if "swapped" in name]


def test_what_2022_wrote_twice_is_read_once(tmp_path):
    state = file_state()
    state |= {key.replace(".conv.", ".Conv2d_0."): value for key, value in file_state().items() if ".downsamplers.0.conv." in key}
    assert (
        load_pseudo3d(folder(tmp_path, state)).unet.keys() == load_pseudo3d(folder(tmp_path, file_state(), name="b")).unet.keys()
    )


def test_heads_are_stable_diffusions_where_the_folder_does_not_say(tmp_path):
    assert load_pseudo3d(folder(tmp_path, file_state(), config=False)).config.num_heads == 8
    assert load_pseudo3d(folder(tmp_path, file_state(), name="other")).name == "other"


def test_menus_find_the_folder_by_where_its_unet_is():
    assert FOLDER.search("timelapse/unet/diffusion_pytorch_model.bin")
    assert FOLDER.search("timelapse\\unet\\diffusion_pytorch_model.safetensors")
    assert not FOLDER.search("timelapse/vae/diffusion_pytorch_model.bin") and not FOLDER.search("longtake_shapes.safetensors")


def without(fragment):
    return {key: value for key, value in file_state().items() if fragment not in key}


BAD = {
    "an image model": (lambda: without("temporal"), "is no pseudo-3-D U-Net of make-a-stable-diffusion-video or TempoFunk"),
    "no conv_in": (
        lambda: without("conv_in"),
        "is not complete: 1 weight is missing (conv_in.spatial_conv.weight); download it again",
    ),
    "a hole": (lambda: without("mid_block.attentions.0.proj_in"), "is not complete: 2 weights are missing"),
    "a temporal hole": (lambda: without("conv_out.temporal_conv.bias"), "is not complete: 1 weight is missing"),
    "one too many": (lambda: file_state() | {"down_blocks.0.attentions.0.more.weight": torch.zeros(1)}, "1 weight is unknown"),
    "not a number": (
        lambda: file_state() | {"conv_in.spatial_conv.bias": torch.full((32,), float("nan"))},
        "is broken: 1 weight is not made of finite floating-point numbers",
    ),
    "an odd width": (
        lambda: file_state() | {"conv_in.spatial_conv.weight": torch.zeros(24, 9, 3, 3)},
        "contradicts itself: a level is 24 channels wide",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_something_else_are_refused(tmp_path, case):
    make, sentence = BAD[case]
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        load_pseudo3d(folder(tmp_path, make()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"attention_head_dim": [8, 8]}', '{"attention_head_dim": 0}'])
def test_a_broken_description_is_refused(tmp_path, text):
    path = folder(tmp_path, file_state())
    path.with_name("config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pseudo3d(path)
