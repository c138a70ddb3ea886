"""The spatial U-Net: Stable Diffusion's names, a noise level per frame, and ComfyUI's numbers."""

import pytest
import tiny
import torch
from pack.modules.nets.unet import UNet, timestep_embedding
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.nets.unfilled import unfilled

WEIGHTS = ("weight", "bias")
RES = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
ATTENTION = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")

# name of a layer -> what it is: the tree of Stable Diffusion 1.5's U-Net, cut down to two levels of one residual block each
TREE = {
    "time_embed.0": "layer",
    "time_embed.2": "layer",
    "input_blocks.0.0": "layer",
    "input_blocks.1.0": "residual",
    "input_blocks.1.1": "transformer",
    "input_blocks.2.0.op": "layer",
    "input_blocks.3.0": "residual with skip",
    "input_blocks.3.1": "transformer",
    "middle_block.0": "residual",
    "middle_block.1": "transformer",
    "middle_block.2": "residual",
    "output_blocks.0.0": "residual with skip",
    "output_blocks.0.1": "transformer",
    "output_blocks.1.0": "residual with skip",
    "output_blocks.1.1": "transformer",
    "output_blocks.1.2.conv": "layer",
    "output_blocks.2.0": "residual with skip",
    "output_blocks.2.1": "transformer",
    "output_blocks.3.0": "residual with skip",
    "output_blocks.3.1": "transformer",
    "out.0": "layer",
    "out.2": "layer",
}


def keys_of(name, kind):
    if kind == "transformer":
        block = f"{name}.transformer_blocks.0"
        layers = [f"{name}.{part}" for part in ("norm", "proj_in", "proj_out")]
        layers += [f"{block}.{part}" for part in ("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")]
        attention = {f"{block}.{which}.{part}" for which in ("attn1", "attn2") for part in ATTENTION}
    else:
        parts = RES if kind.startswith("residual") else ("",)
        layers = [f"{name}.{part}".rstrip(".") for part in parts]
        layers += [f"{name}.skip_connection"] if kind.endswith("skip") else []
        attention = set()
    return attention | {f"{layer}.{weight}" for layer in layers for weight in WEIGHTS}


def test_names_are_stable_diffusions():
    unet = tiny.unet(transformer_depth=(1, 1), transformer_depth_output=(1, 1, 1, 1), context_dim=24)
    expected = set().union(*(keys_of(name, kind) for name, kind in TREE.items()))
    assert set(unet.state_dict()) == expected


def test_the_default_is_stable_diffusions():
    with torch.device("meta"):
        from pack.modules.nets.unet import UNet

        unet = UNet(UNetConfig(context_dim=768))
    state = unet.state_dict()
    assert len(state) == 686
    assert sum(value.numel() for value in state.values()) == 859_520_964


@pytest.mark.parametrize("frames", [1, 5])
def test_every_frame_has_its_own_timestep(frames):
    """One call with a vector of timesteps equals a call per frame."""
    unet = tiny.unet(label_channels=3)
    g = torch.Generator().manual_seed(1)
    x, t, y = torch.randn(frames, 4, 8, 8, generator=g), torch.arange(frames) * 190.0, torch.rand(frames, 3, generator=g)
    together = unet(x, t, y=y)
    alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], y=y[i : i + 1]) for i in range(frames)])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=1e-5)
    if frames > 1:
        assert (unet(x, t.flip(0), y=y) - together).abs().max() > 1e-3


def test_timestep_embedding_is_the_closed_form():
    t = torch.tensor([0.0, 1.0, 999.0])
    rates = [10000.0 ** (-i / 4) for i in range(4)]
    expected = [
        [torch.tensor(float(v) * r).cos().item() for r in rates] + [torch.tensor(float(v) * r).sin().item() for r in rates]
        for v in t
    ]
    torch.testing.assert_close(timestep_embedding(t, 8), torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_res_blocks": (1,)}, "channel_mult has 2 levels and num_res_blocks 1"),
        ({"transformer_depth": (1,)}, r"have \(1, 4\) entries: this U-Net has \(2, 4\)"),
        ({"groups": 7}, "32 channels wide: it must be a multiple of groups=7"),
        ({"num_heads": 3}, "num_heads=3"),
    ],
)
def test_impossible_architectures_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.config(**changes)


@pytest.mark.parametrize(
    ("label_channels", "y", "sentence"), [(3, None, "takes a label"), (None, torch.zeros(1, 3), "takes no label")]
)
def test_labels_must_agree(label_channels, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.unet(label_channels=label_channels)(torch.zeros(1, 4, 8, 8), torch.zeros(1), y=y)


CONFIGS = {
    "narrow": {},
    "few groups": {"groups": 4},
    "scale and shift": {"use_scale_shift_norm": True},
    "labels": {"label_channels": 5},
    "context": {"context_dim": 24},
    "pixels in patches": {"in_channels": 48, "out_channels": 48},
    "deep transformers": {"transformer_depth": (1, 2), "transformer_depth_output": (1, 0, 2, 1), "transformer_depth_middle": 2},
    "stable diffusion's levels": {
        "channel_mult": (1, 2, 4, 4),
        "num_res_blocks": (2, 2, 2, 2),
        "transformer_depth": (1, 1, 1, 1, 1, 1, 0, 0),
        "transformer_depth_output": (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
        "context_dim": 24,
        "num_heads": 8,
        "groups": 32,
    },
}


@pytest.mark.comfy
@pytest.mark.parametrize("size", [(8, 8), (9, 7)], ids=["even", "odd"])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_equals_comfyuis(changes, size):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    ours = tiny.unet(**changes)
    theirs = UNetModel(**ours.config.comfyui(), dtype=torch.float32, device="cpu", operations=disable_weight_init).eval()
    theirs.load_state_dict(ours.state_dict())
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = ours.config.groups
    g = torch.Generator().manual_seed(2)
    x, t = torch.randn(3, ours.config.in_channels, *size, generator=g), torch.tensor([0.0, 321.0, 999.0])
    context = torch.randn(3, 5, 24, generator=g) if ours.config.context_dim else None
    y = torch.rand(3, 5, generator=g) if ours.config.label_channels else None
    with torch.no_grad():
        expected = theirs(x, t, context=context, y=y)
    torch.testing.assert_close(ours(x, t, context, y), expected, atol=1e-5, rtol=1e-5)


def test_an_unfilled_network_has_the_shapes_of_a_filled_one_and_nothing_drawn():
    with tiny.seeded(3):
        filled = UNet(tiny.config()).state_dict()
        before = torch.get_rng_state()
        with unfilled():
            made = UNet(tiny.config())
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.nn.Linear(2, 2).weight.any(), "afterwards layers are filled as ever"
    assert all(value.is_meta and value.shape == filled[key].shape for key, value in made.state_dict().items())
    assert made.load_state_dict(filled, assign=True) and not any(value.is_meta for value in made.state_dict().values())
