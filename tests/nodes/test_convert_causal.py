"""Convert Causal Checkpoint: the authors' file becomes one that ComfyUI's own loader takes, and a take is made with it."""

import json

import pytest
import torch
from causal_files import TEXT, peft_lora, prefixed, wan_state
from pack import host
from pack.nodes.forcing.causal_take import LongTakeCausalTake as CausalTake
from pack.nodes.models.convert_causal import LongTakeConvertCausal as Convert
from safetensors import safe_open


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where checkpoints lie and new files go."""
    monkeypatch.setattr(host.chosen(), "model_directory", lambda kind: tmp_path, raising=False)
    monkeypatch.setattr(host.chosen(), "file", lambda kind, name: tmp_path / name, raising=False)
    return tmp_path


def converted(folder, state, **given):
    torch.save({"generator": prefixed(state, "model.")}, folder / "official.pt")
    said = Convert.execute(ckpt_name="official.pt", name="tiny", system="LongLive 1.0", **given).result[0]
    return folder / "tiny.safetensors", said


def test_a_file_says_what_it_is_for(folder):
    path, said = converted(folder, wan_state(dim=24, text=24), dtype="bf16")
    with safe_open(path, framework="pt") as file:
        about, weight = json.loads(file.metadata()["longtake_causal"]), file.get_tensor("blocks.0.ffn.0.weight")
        assert "config" not in file.metadata()
    assert (about["system"], about["block"], about["cache"]["sinks"]) == ("LongLive 1.0", 3, 3)
    assert weight.dtype == torch.bfloat16 and said.startswith("official.pt: 42 weights; written to")
    with pytest.raises(ValueError, match="there is a file .*tiny.safetensors already"):
        converted(folder, wan_state(dim=24, text=24))


def test_bad_input_and_cancel_leave_no_file(folder, monkeypatch):
    with pytest.raises(ValueError, match="cannot be a file name"):
        Convert.execute(ckpt_name="official.pt", name="a/b")
    with pytest.raises(ValueError, match="48 channels, and ComfyUI loads marked files with 16 alone"):
        converted(folder, wan_state(dim=24, text=24, channels=48), mark_for_core=True)
    torch.save(peft_lora({"blocks.0.self_attn.q": (24, 24)}), folder / "lora.pt")

    def cancel(self, done, preview=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(host.Progress, "update", cancel)
    with pytest.raises(KeyboardInterrupt):
        converted(folder, wan_state(dim=24, text=24), lora="lora.pt")
    assert sorted(path.name for path in folder.iterdir()) == ["lora.pt", "official.pt"]


@pytest.mark.comfy
@pytest.mark.parametrize(("channels", "mark"), [(16, False), (16, True), (48, False)])
def test_comfyui_s_own_loader_takes_it_and_a_take_is_made(folder, channels, mark):
    import comfy.sd

    state = wan_state(channels=channels)
    path, _ = converted(folder, state, mark_for_core=mark)
    model = comfy.sd.load_diffusion_model(str(path))
    network = model.model.diffusion_model
    loaded = network.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    marked = "ar_model" in type(network).__module__
    assert marked <= mark
    text = [[torch.randn(1, 8, TEXT, generator=torch.Generator().manual_seed(1)), {}]]
    latent = {"samples": torch.zeros(1, channels, 6, 4, 6)}
    made = CausalTake.execute(model, text, latent, seed=1).result[0]["samples"]
    assert made.shape == (1, channels, 6, 4, 6) and made.isfinite().all()
