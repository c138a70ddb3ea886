"""The authors' checkpoints of causal Wan models: every spelling gives the same weights, and other files are refused by name."""

import pytest
import torch
from causal_files import peft_lora, prefixed, wan_state
from pack.modules.checkpoints.causal import merge_lora, read_causal, read_lora
from safetensors.torch import save_file

SMALL = {"dim": 24, "text": 24, "layers": 2}


@pytest.fixture
def state():
    return wan_state(**SMALL)


SPELLINGS = {
    "generator": lambda s: {"generator": prefixed(s, "model."), "critic": {"model.x": torch.zeros(1)}},
    "fsdp": lambda s: {
        "generator_ema": {
            key.replace("blocks.", "model._fsdp_wrapped_module.blocks.")
            if key.startswith("blocks.")
            else f"model._fsdp_wrapped_module.{key}": value
            for key, value in s.items()
        }
    },
    "compiled": lambda s: {"generator": prefixed(s, "_orig_mod.", "model.")},
    "flat": lambda s: prefixed(s, "model."),
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": prefixed(s, "diffusion_model.")},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_same_weights(state, spelling, tmp_path):
    torch.save(SPELLINGS[spelling](state), tmp_path / "a.pt")
    read = read_causal(tmp_path / "a.pt")
    assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


def test_safetensors_is_read_too(state, tmp_path):
    save_file(prefixed(state, "model."), tmp_path / "a.safetensors")
    assert read_causal(tmp_path / "a.safetensors").keys() == state.keys()


def test_which_weights_are_taken(state, tmp_path):
    other = wan_state(seed=5, **SMALL)
    torch.save({"generator": prefixed(state, "model."), "generator_ema": prefixed(other, "model.")}, tmp_path / "both.pt")
    torch.save({"generator": prefixed(state, "model.")}, tmp_path / "one.pt")
    key = "blocks.1.ffn.0.weight"
    for weights, expected in (("ema or generator", other), ("generator_ema", other), ("generator", state)):
        assert torch.equal(read_causal(tmp_path / "both.pt", weights)[key], expected[key])
    assert torch.equal(read_causal(tmp_path / "one.pt")[key], state[key])
    with pytest.raises(ValueError, match="one.pt has no generator_ema: it has generator; choose one of these"):
        read_causal(tmp_path / "one.pt", "generator_ema")


@pytest.mark.parametrize("wrap", [lambda s: {"generator_lora": s}, lambda s: s], ids=["wrapped", "bare"])
def test_a_lora_is_merged(state, wrap, tmp_path):
    layers = {"blocks.0.self_attn.q": (24, 24), "model.blocks.1.ffn.0": (64, 24)}
    torch.save(wrap(peft_lora(layers)), tmp_path / "lora.pt")
    lora, told = read_lora(tmp_path / "lora.pt"), []
    merged = merge_lora(state, lora, 0.5, each=told.append)
    changed = [key for key in state if not torch.equal(merged[key], state[key])]
    assert sorted(changed) == ["blocks.0.self_attn.q.weight", "blocks.1.ffn.0.weight"] and told == [1, 2]
    down, up = lora["blocks.1.ffn.0"]
    torch.testing.assert_close(merged["blocks.1.ffn.0.weight"], state["blocks.1.ffn.0.weight"] + 0.5 * up @ down)
    half = merge_lora({key: value.half() for key, value in state.items()}, lora)
    assert half["blocks.0.self_attn.q.weight"].dtype == torch.float16


def broken(state, key, value):
    return {**{name: weight for name, weight in state.items() if name != key}, **({} if value is None else {key: value})}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda s: {"encoder.conv_in.weight": torch.zeros(1)}, "is a VAE, for Load VAE"),
        (lambda s: {"controlnet_cond_embedding.x": torch.zeros(1)}, "is a ControlNet"),
        (lambda s: {"x": torch.zeros(1)}, "is no Wan model"),
        (lambda s: {"step": 3}, "holds no weights"),
        (lambda s: s | {"img_emb.proj.0.weight": torch.zeros(1)}, "is a Wan model for image to video"),
        (lambda s: prefixed(s, "model.") | {"optimizer.x": torch.zeros(1)}, "holds optimizer.x beside a network under 'model.'"),
        (lambda s: broken(s, "blocks.1.ffn.2.bias", None), "1 weight is missing .blocks.1.ffn.2.bias."),
        (lambda s: broken(s, "blocks.0.modulation", torch.zeros(1, 6, 25)), "unknown or of another shape"),
        (lambda s: broken(s, "head.modulation", torch.full((1, 2, 24), torch.inf)), "not made of finite"),
        (lambda s: {"generator": {"model." + k: v for k, v in s.items()}, "x": torch.nn.Linear(1, 1)}, "Python objects beside its weights"),
    ],
)  # fmt: skip
def test_other_files_are_refused_by_name(state, content, said, tmp_path):
    torch.save(content(state), tmp_path / "file.pt")
    with pytest.raises(ValueError, match=f"file.pt.*{said}"):
        read_causal(tmp_path / "file.pt")


def test_a_lora_of_another_kind_or_network_is_refused(state, tmp_path):
    torch.save({"lora_unet_blocks_0.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "kohya.pt")
    with pytest.raises(ValueError, match=r"kohya.pt is no LoRA in PEFT's layout.*LoraLoaderModelOnly"):
        read_lora(tmp_path / "kohya.pt")
    lora = peft_lora({"blocks.0.self_attn.q": (24, 24)})
    torch.save(dict(list(lora.items())[:1]), tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"two matrices of blocks.0.self_attn.q do not fit"):
        read_lora(tmp_path / "half.pt")
    for layer, said in (("blocks.9.self_attn.q", "has none"), ("blocks.0.ffn.0", r"has \[64, 24\]")):
        torch.save(peft_lora({layer: (24, 24)}), tmp_path / "other.pt")
        with pytest.raises(ValueError, match=f"{said}: it is for another network"):
            merge_lora(state, read_lora(tmp_path / "other.pt"))


def test_nothing_in_a_file_is_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"generator": Runs()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="Python objects"):
        read_causal(tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="there is no file"):
        read_causal(tmp_path / "none.pt")
