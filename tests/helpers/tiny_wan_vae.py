"""Wan's VAEs as ComfyUI has them, with few channels and random weights that matter."""

import importlib

import torch

NETWORKS = {16: "comfy.ldm.wan.vae", 48: "comfy.ldm.wan.vae2_2"}


def wan_vae(monkeypatch, channels=16, seed=0):
    """ComfyUI's VAE around a small network of that kind; the widths of the real ones are fixed there."""
    import comfy.sd

    module = importlib.import_module(NETWORKS[channels])
    network = module.WanVAE(
        dim=8,
        z_dim=channels,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **({"dec_dim": 8} if channels == 48 else {}),
    )
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and "gamma" not in name:
                weight.copy_(torch.randn(weight.shape, generator=g) * (2 / weight[0].numel()) ** 0.5)
            elif "gamma" not in name:
                weight.copy_(torch.randn(weight.shape, generator=g) / 20)
    with monkeypatch.context() as patch:
        patch.setattr(module, "WanVAE", lambda **_: network)
        return comfy.sd.VAE(sd=network.requires_grad_(False).state_dict())
