"""Small Wan models for tests: ComfyUI's network, diffusers' SkyReels-V2 with the same weights, and files of both spellings."""

import re

import pytest
import torch

FRAMES, SIZE = 6, (4, 6)
SHAPE = {"dim": 24, "ffn_dim": 48, "freq_dim": 32, "text_dim": 24, "num_heads": 2, "num_layers": 2}

# diffusers' names of the same weights
RENAMES = (
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^proj_out", "head.head"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"scale_shift_table$", "modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"\.ffn\.net\.0\.proj", ".ffn.0"),
    (r"\.ffn\.net\.2", ".ffn.2"),
    (r"^fps_projection\.net\.0\.proj", "fps_projection.0"),
    (r"^fps_projection\.net\.2", "fps_projection.2"),
    (r"\.attn1\.to_out\.0", ".self_attn.o"),
    (r"\.attn2\.to_out\.0", ".cross_attn.o"),
    (r"\.attn1\.(to_)?", ".self_attn."),
    (r"\.attn2\.(to_)?", ".cross_attn."),
)


def randomize(module, seed=0):
    """The same random weights every time, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "scale_shift_table" in name or name.endswith("modulation"):
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
            elif weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) / max(1, weight[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                weight.fill_(1.0)
            else:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return module.requires_grad_(False).eval()


def skyreels_transformer(seed=3, *, fps=True):
    """diffusers' network."""
    pytest.importorskip("diffusers")
    from diffusers import SkyReelsV2Transformer3DModel

    network = SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=SHAPE["num_heads"],
        attention_head_dim=SHAPE["dim"] // SHAPE["num_heads"],
        in_channels=16,
        out_channels=16,
        text_dim=SHAPE["text_dim"],
        freq_dim=SHAPE["freq_dim"],
        ffn_dim=SHAPE["ffn_dim"],
        num_layers=SHAPE["num_layers"],
        cross_attn_norm=True,
        inject_sample_info=fps,
        num_frame_per_block=1,
    )
    return randomize(network, seed)


def wan_state(transformer):
    """A diffusers network's weights under Wan's own names."""
    state = {}
    for key, value in transformer.state_dict().items():
        for pattern, name in RENAMES:
            key = re.sub(pattern, name, key)
        state[key] = value
    return state


def wan_model(state=None, *, kind="WAN21", network=None, seed=0, dtype=torch.float32, device="cpu", **shape):
    """ComfyUI's MODEL around a Wan network, with random weights or the given ones, that is loaded to a device when it is used."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = {"model_type": "t2v", "patch_size": (1, 2, 2), "in_dim": 16, "out_dim": 16, "text_len": 8, "image_model": "wan2.1"}
    settings = comfy.supported_models.WAN21_T2V(config | SHAPE | {"dtype": dtype} | shape)
    settings.unet_config.pop("num_head_channels", None)
    settings.set_inference_dtype(dtype, None)
    cpu = torch.device("cpu")
    model = getattr(comfy.model_base, kind)(settings, device=cpu)
    if network is not None:
        model.diffusion_model = network
    randomize(model.diffusion_model, seed)
    if state is not None:
        missing, unexpected = model.diffusion_model.load_state_dict(state, strict=False)
        assert not missing, missing
        assert all(key.startswith("fps_") for key in unexpected), unexpected
    return comfy.model_patcher.ModelPatcher(
        model.requires_grad_(False).eval(), load_device=torch.device(device), offload_device=cpu
    )


def text(seed, tokens=8):
    """A CONDITIONING."""
    return [[torch.randn(1, tokens, SHAPE["text_dim"], generator=torch.Generator().manual_seed(seed)), {}]]


def video(frames=FRAMES, *, seed=2, channels=16, batch=1):
    """A noisy video latent: ``b c f h w``."""
    return torch.randn(batch, channels, frames, *SIZE, generator=torch.Generator().manual_seed(seed))
