"""DoRAs of motion modules (arXiv:2402.09353): every spelling, both axes, any strength; in ComfyUI by the same formula."""

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion_lora import load_motion_lora, merged
from safetensors.torch import save_file
from tiny_lora import lora_state, matrices, weight_key
from tiny_motion import image_model, motion_file, motion_state
from weight_files import one_sentence

ALPHA = 2.0
# spelling of the lengths, and of the layers' factor where the file has one, for a layer's key without its end
SPELLINGS = {
    "kohya": (".lora_up.weight", ".dora_scale", ".alpha"),
    "PEFT": (".lora_B.weight", ".lora_magnitude_vector", None),
    "PEFT with adapter name": (".lora_B.default.weight", ".lora_magnitude_vector.default.weight", None),
    "diffusers, new": (".lora.up.weight", ".dora_scale", ".alpha"),
}


def weights():
    return {key: value for key, value in motion_state().items() if not key.endswith(".pe")}


def lengths_of(value, axis):
    """Lengths near those that the weight has, so that nothing explodes."""
    generator = torch.Generator().manual_seed(len(value))
    usual = value.norm(dim=axis, keepdim=True)
    return usual * (0.5 + torch.rand(usual.shape, generator=generator))


def dora_file(folder, layout, axis, *, flat=False):
    """The file, and what each changed weight becomes, in float64 from the definition."""
    up_end, length_end, alpha_end = SPELLINGS[layout]
    state, base, wanted = lora_state(layout), weights(), {}
    ups = [key for key in state if key.endswith(up_end)]
    layers = matrices(everything=True)
    assert len(ups) == len(layers)
    for key, (layer, up, down) in zip(ups, layers, strict=True):
        weight = base[weight_key(*layer)]
        lengths = lengths_of(weight, axis)
        state[key.removesuffix(up_end) + length_end] = lengths[:, 0].clone() if flat else lengths
        if alpha_end:
            state[key.removesuffix(up_end) + alpha_end] = torch.tensor(ALPHA)
        whole = weight.double() + (ALPHA / len(down) if alpha_end else 1) * (up.double() @ down.double())
        wanted[weight_key(*layer)] = lengths.double() * whole / whole.norm(dim=axis, keepdim=True)
    path = folder / "dora.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path, wanted


def assert_changed(given, wanted, strength=1.0, tolerance=2e-6):
    base = weights()
    for key, value in base.items():
        expected = value.double() + strength * (wanted[key] - value) if key in wanted else value.double()
        torch.testing.assert_close(given[key].double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()), msg=key)


@pytest.mark.parametrize("strength", [1.0, 0.4, -1.0])
@pytest.mark.parametrize("axis", [0, 1], ids=["columns", "rows"])
@pytest.mark.parametrize("layout", SPELLINGS)
def test_every_spelling_gives_the_weights_their_lengths(tmp_path, layout, axis, strength):
    path, wanted = dora_file(tmp_path, layout, axis, flat=layout.startswith("PEFT") and axis == 1)
    lora = load_motion_lora(path)
    assert set(lora.lengths) == set(wanted) and not lora.spatial
    assert_changed(merged(weights(), [lora.at(strength)]), wanted, strength)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (torch.ones(7), r"is a DoRA with lengths of the shape \[7\]: one for each of its 32 rows or 32 columns is known"),
        (torch.ones(()), r"is a DoRA with lengths of the shape \[\]"),
        (torch.full((32, 1), torch.nan), "is not made of finite floating-point numbers"),
    ],
)
def test_lengths_that_fit_nothing_are_refused(tmp_path, lengths, said):
    state = lora_state("kohya")
    key = next(key for key in state if key.endswith("to_q.lora_up.weight"))
    save_file({**state, key.replace("lora_up.weight", "dora_scale"): lengths}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=said) as error:
        load_motion_lora(tmp_path / "x.safetensors")
    one_sentence(error)


@pytest.mark.comfy
@pytest.mark.parametrize("axis", [0, 1], ids=["columns", "rows"])
def test_comfyui_merges_it_by_the_same_formula(tmp_path, axis):
    import comfy.model_management
    from pack.modules.checkpoints.motion import load_motion_module

    path, wanted = dora_file(tmp_path, "kohya", axis)
    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    changed = host.apply_motion_lora(model, load_motion_lora(path), 0.4)
    motion = changed.get_additional_models()[0]
    comfy.model_management.load_models_gpu([motion])
    given = {key: value.clone().cpu() for key, value in motion.model.state_dict().items()}
    assert_changed(given, wanted, 0.4)
    comfy.model_management.unload_all_models()
    assert_changed(dict(motion.model.state_dict()), {})


@pytest.mark.comfy
def test_a_part_of_sampling_is_refused(tmp_path):
    from pack.modules.checkpoints.motion import load_motion_module

    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    with pytest.raises(ValueError, match="is a DoRA, which changes the weights as a whole and not for a while") as error:
        host.apply_motion_lora(model, load_motion_lora(dora_file(tmp_path, "kohya", 1)[0]), start_percent=0.5)
    one_sentence(error)
