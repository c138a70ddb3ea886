"""Small files of causal Wan models as their authors save them."""

import torch

DIM, TEXT, FREQ, INNER = 128, 4096, 256, 64  # ComfyUI tells heads from the width, 128 each, and umT5's width is fixed


def wan_state(seed=0, layers=1, channels=16, dim=DIM, text=TEXT):
    """Wan's weights for text to video, by the names in its repository."""
    g = torch.Generator().manual_seed(seed)

    def linear(name, out, into):
        return {
            f"{name}.weight": torch.randn(out, into, generator=g) / into**0.5,
            f"{name}.bias": torch.randn(out, generator=g) / 9,
        }

    state = {
        "patch_embedding.weight": torch.randn(dim, channels, 1, 2, 2, generator=g) / 8,
        "patch_embedding.bias": torch.zeros(dim),
    }
    state |= linear("text_embedding.0", dim, text) | linear("text_embedding.2", dim, dim)
    state |= (
        linear("time_embedding.0", dim, FREQ) | linear("time_embedding.2", dim, dim) | linear("time_projection.1", 6 * dim, dim)
    )
    for block in (f"blocks.{number}" for number in range(layers)):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                state |= linear(f"{block}.{attention}.{part}", dim, dim)
            state |= {f"{block}.{attention}.norm_{part}.weight": torch.ones(dim) for part in "qk"}
        state |= linear(f"{block}.ffn.0", INNER, dim) | linear(f"{block}.ffn.2", dim, INNER)
        state |= {f"{block}.norm3.weight": torch.ones(dim), f"{block}.norm3.bias": torch.zeros(dim)}
        state[f"{block}.modulation"] = torch.randn(1, 6, dim, generator=g) / 9
    state |= linear("head.head", channels * 4, dim)
    state["head.modulation"] = torch.randn(1, 2, dim, generator=g) / 9
    return state


def prefixed(state, *words):
    return {"".join(words) + key: value for key, value in state.items()}


def peft_lora(layers, rank=4, seed=3):
    """A LoRA for layers by name and shape ``(out, in)``, in PEFT's layout."""
    g, made = torch.Generator().manual_seed(seed), {}
    for layer, (out, into) in layers.items():
        made[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(rank, into, generator=g) / 9
        made[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, rank, generator=g) / 9
    return made
