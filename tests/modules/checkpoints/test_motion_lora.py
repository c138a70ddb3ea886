"""MotionLoRAs: every spelling of the keys, what is merged, and what is refused."""

import pytest
import torch
from pack import host
from pack.modules.checkpoints.lora_names import canonical
from pack.modules.checkpoints.motion_lora import MotionLora, block_strength, fitting, load_motion_lora, merged, slot_of
from pack.modules.temporal.low_rank import Branches, install, remove
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.transformer import TemporalConfig
from safetensors.torch import save_file
from sparing import sparing
from tiny_lora import LAYOUTS, RANK, adapter_state, lora_file, lora_state, peft_metadata, wanted
from tiny_motion import image_model, ksample, motion_file, motion_state, randomized, slot_widths

ATTENTIONS = 2 * 4  # layers of one slot that an attention-only LoRA changes


def weights(**options):
    """A motion model's weights, without the tables of positions."""
    return {key: value for key, value in motion_state(**options).items() if not key.endswith(".pe")}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def assert_same(given, expected, tolerance=1e-5):
    assert given.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            given[key].double(), value.double(), rtol=0, atol=tolerance * float(value.abs().max()), msg=key
        )


@pytest.mark.parametrize("strength", [1.0, -1.0, 0.35])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_merges_to_the_definition(tmp_path, layout, strength):
    lora = load_motion_lora(lora_file(tmp_path, layout))
    assert not lora.spatial
    assert_same(merged(weights(), [lora.at(strength)]), wanted(weights(), layout, strength))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_may_be_a_wrapped_ckpt_in_half_precision(tmp_path, layout):
    path = tmp_path / "lora.ckpt"
    state = {key: value.half() for key, value in lora_state(layout).items()}
    torch.save({"state_dict": state, "animatediff_config": {"motion_module_type": "Vanilla"}}, path)
    plain = tmp_path / "plain.ckpt"
    torch.save({**state, "animatediff_config": {"motion_module_type": "Vanilla"}}, plain)
    for lora in (load_motion_lora(path), load_motion_lora(plain)):
        assert {delta.up.dtype for delta in lora.deltas.values()} == {torch.float16}
        assert_same(merged(weights(), [lora]), wanted(weights(), layout), tolerance=2e-3)


def test_matrices_kept_as_convolutions_are_the_same(tmp_path):
    lora = load_motion_lora(lora_file(tmp_path, convolutions=True))
    assert_same(merged(weights(), [lora]), wanted(weights()))


ALPHAS = {
    "of a layer": ("peft", lambda layer: f"unet.{layer}.alpha"),
    "of a processor": ("diffusers, old", lambda layer: f"unet.{layer.replace('.to_q', '.processor.to_q_lora')}.alpha"),
    "of a matrix": ("diffusers, old", lambda layer: f"unet.{layer.replace('.to_q', '.processor.to_q_lora')}.down.weight.alpha"),
    "beside PEFT's": ("PEFT", lambda layer: f"unet.{layer}.lora_A.weight.alpha"),
}


@pytest.mark.parametrize(("layout", "spell"), ALPHAS.values(), ids=ALPHAS)
def test_alpha_is_divided_by_the_rank(tmp_path, layout, spell):
    """Also where it is kept as ``network_alphas``, which diffusers calls by names of its own."""
    layer = "mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q"
    state = lora_state("PEFT" if layout == "peft" else layout, middle=True) | {spell(layer): torch.tensor(1.0)}
    path = tmp_path / "lora.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    deltas = load_motion_lora(path).deltas
    key = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q.weight"
    assert {name: delta.factor for name, delta in deltas.items() if delta.factor != 1} == {key: 1 / RANK}


@pytest.mark.parametrize(("root", "divisor"), [(False, RANK), (True, RANK**0.5)])
def test_the_settings_that_diffusers_writes_are_obeyed(tmp_path, root, divisor):
    metadata = peft_metadata(6.0, pattern={"^mid_block.motion_modules.0.proj_in": 3.0, "attn2.to_v": 1.0}, root=root)
    deltas = load_motion_lora(lora_file(tmp_path, "PEFT", metadata=metadata, middle=True)).deltas
    inside = "mid_block.motion_modules.0.temporal_transformer."
    for key, delta in deltas.items():
        alpha = 3 if key == inside + "proj_in.weight" else 1 if key.endswith("attention_blocks.1.to_v.weight") else 6
        assert delta.factor == pytest.approx(alpha / divisor), key


def test_the_rank_in_motion_directors_metadata_scales_nothing(tmp_path):
    metadata = {"model_type": "motion_director", "rank": "64"}
    assert {
        delta.factor for delta in load_motion_lora(lora_file(tmp_path, "MotionDirector", metadata=metadata)).deltas.values()
    } == {1}


def test_a_peft_file_is_what_diffusers_makes_of_it(tmp_path):
    """diffusers' own loader on its own motion U-Net, then its weights after fusing, at three kinds of alpha."""
    pytest.importorskip("peft")
    diffusers = pytest.importorskip("diffusers")
    for layout, metadata, factor in [
        ("PEFT", None, 1.0),
        ("PEFT", peft_metadata(2.0, middle=True), 2.0 / RANK),
        ("PEFT", peft_metadata(2.0, root=True, middle=True), 2.0 / RANK**0.5),
        ("diffusers, old", None, 1.0),
    ]:
        unet = diffusers.UNetMotionModel(
            block_out_channels=(32, 64),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
            cross_attention_dim=16,
            motion_num_attention_heads=8,
            num_attention_heads=4,
        ).requires_grad_(False)
        theirs = {key: value.clone() for key, value in unet.state_dict().items() if ".motion_modules." in key}
        ours = {_from_diffusers(key): value for key, value in theirs.items() if not key.endswith(".pe")}
        path = lora_file(tmp_path, layout, metadata=metadata, middle=True)
        unet.load_lora_adapter(str(path), prefix="unet", use_safetensors=True)
        unet.fuse_lora()
        unet.unload_lora()
        fused = {_from_diffusers(key): value for key, value in unet.state_dict().items() if _from_diffusers(key) in ours}
        assert_same(merged(ours, [load_motion_lora(path)]), fused)
        assert_same(fused, wanted(ours, layout, factor=factor, middle=True))


def _from_diffusers(key):
    for old, new in (
        (".attn1.", ".attention_blocks.0."),
        (".attn2.", ".attention_blocks.1."),
        (".transformer_blocks.", ".temporal_transformer.transformer_blocks."),
        (".proj_in.", ".temporal_transformer.proj_in."),
    ):
        key = key.replace(old, new) if ".motion_modules." in key else key
    return key


def test_several_add_up_and_the_precision_of_the_weights_stays(tmp_path):
    first, second = (load_motion_lora(lora_file(tmp_path, name=f"{seed}.safetensors", seed=seed)) for seed in (1, 2))
    both = merged(weights(), [first.at(0.5), second.at(-2)])
    assert_same(both, wanted(wanted(weights(), strength=0.5, seed=1), strength=-2, seed=2))
    half = merged({key: value.half() for key, value in weights().items()}, [first])
    assert {value.dtype for value in half.values()} == {torch.float16}


def test_minus_one_is_exactly_the_difference(tmp_path):
    lora, state = load_motion_lora(lora_file(tmp_path)), weights()
    less = merged(state, [lora.at(-1)])
    for key, (up, down, _) in lora.deltas.items():
        assert torch.equal(less[key], state[key] - up @ down)
    assert all(less[key] is state[key] for key in state if key not in lora.deltas)


def test_blocks_have_strengths_of_their_own(tmp_path):
    lora, state = load_motion_lora(lora_file(tmp_path)), weights()
    only = merged(state, [lora.at(0.5, lambda slot: 2.0 if slot.startswith("up_blocks.1.") else 0.0)])
    full = merged(state, [lora])
    for key in state:
        assert torch.equal(only[key], full[key] if key.startswith("up_blocks.1.") else state[key]), key


def test_blocks_are_written_as_for_motion_modules():
    strength = block_strength("all 0\nup.1 -0.5; mid 2")
    slots = ("down_blocks.0.motion_modules.1", "up_blocks.1.motion_modules.0", "mid_block.motion_modules.0")
    assert strength is not None and [strength(slot) for slot in slots] == [0, -0.5, 2]
    assert block_strength(" \n") is None
    for text, said in (("up scale=2", "which only motion modules have"), ("left 1", "names no part")):
        with pytest.raises(ValueError, match=said) as error:
            block_strength(text)
        one_sentence(error)


def test_slots_and_canonical_keys():
    key = "up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_out.0"
    assert slot_of(key) == "up_blocks.1.motion_modules.2"
    assert canonical("module.up_blocks.1.motion_modules.2.transformer_blocks.0.attn2.to_out_lora.alpha") == f"{key}.alpha"


def test_a_lora_of_v2_fits_v3_but_for_the_middle(tmp_path):
    lora = load_motion_lora(lora_file(tmp_path, middle=True))
    fits = fitting(lora, shapes(weights()), "v3.ckpt")
    assert len(lora.deltas) - len(fits.deltas) == ATTENTIONS
    assert_same(merged(weights(), [fits]), wanted(weights(), middle=True))
    assert len(fitting(lora, shapes(weights(middle=True)), "v2.ckpt").deltas) == len(lora.deltas)


def one_sentence(error):
    said = str(error.value)
    assert "\n" not in said and len(said) < 400, said
    return said


@pytest.mark.parametrize("levels", [(64, 128), (32, 128)])
def test_a_lora_for_another_base_is_refused(tmp_path, levels):
    lora = load_motion_lora(lora_file(tmp_path, levels=levels))
    with pytest.raises(ValueError, match=r"lora.safetensors is a MotionLoRA for another base model than v3.ckpt") as error:
        fitting(lora, shapes(weights()), "v3.ckpt")
    one_sentence(error)


def test_a_lora_with_no_place_at_all_is_refused():
    empty = MotionLora("zoom.ckpt", {})
    with pytest.raises(ValueError, match=r"none of the 0 weights of zoom.ckpt are in v3.ckpt") as error:
        fitting(empty, shapes(weights()), "v3.ckpt")
    one_sentence(error)


KEY = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0."
UP, DOWN = KEY + "processor.to_q_lora.up.weight", KEY + "processor.to_q_lora.down.weight"


def _changed(key, value):
    return lambda state: {**state, key: value}


BAD = {
    "a motion module": (lambda state: motion_state(), "it is a motion module"),
    "a checkpoint": (lambda state: {"model.diffusion_model.out.0.weight": torch.zeros(2)}, "a whole checkpoint"),
    "a ControlNet": (lambda state: {"control_model.input_blocks.0.0.weight": torch.zeros(2)}, "a ControlNet"),
    "SparseCtrl": (lambda state: motion_state() | {"controlnet_cond_embedding.conv_in.weight": torch.zeros(2)}, "SparseCtrl"),
    "anything": (lambda state: {"weights": torch.zeros(2)}, "first keys are weights"),
    "nothing": (lambda state: {}, "first keys are none"),
    "half of a pair": (lambda state: {key: value for key, value in state.items() if key != UP}, "has no up matrix"),
    "the other half": (lambda state: {key: value for key, value in state.items() if key != DOWN}, "has no down matrix"),
    "ranks that differ": (_changed(UP, torch.zeros(32, RANK + 1)), "do not fit each other"),
    "real convolutions": (_changed(UP, torch.zeros(32, RANK, 3, 3)), "do not fit each other"),
    "not a number": (_changed(UP, torch.full((32, RANK), torch.nan)), "1 weight is not made of finite floating-point numbers"),
    "LoHa": (_changed(KEY + "to_q.hada_w1_a", torch.zeros(32)), "hada_w1_a, which is no part of a plain"),
    "two spellings": (_changed(KEY + "to_q.lora_up.weight", torch.zeros(32, RANK)), "twice, in two spellings"),
}


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_work_is_refused_in_one_sentence(tmp_path, spoil, said, ending):
    path = tmp_path / f"bad.{ending}"
    state = {key: value.clone() for key, value in spoil(lora_state()).items()}
    torch.save(state, path) if ending == "ckpt" else save_file(state, path)
    with pytest.raises(ValueError) as error:
        load_motion_lora(path)
    assert said in one_sentence(error) and path.name in str(error.value)


@pytest.mark.parametrize("written", ["{", "[]", '{"unet.alpha_pattern": {"(": 1}}', '{"unet.lora_alpha": "much"}'])
def test_metadata_that_nobody_writes_is_refused(tmp_path, written):
    path = lora_file(tmp_path, "PEFT", metadata={"lora_adapter_metadata": written})
    with pytest.raises(ValueError, match="lora_adapter_metadata") as error:
        load_motion_lora(path)
    one_sentence(error)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load_motion_lora(tmp_path / "none.safetensors")


def test_the_parts_of_a_file_for_the_image_model_are_told_apart(tmp_path):
    path = tmp_path / "both.safetensors"
    spatial = adapter_state()
    save_file({key: value.contiguous() for key, value in (spatial | lora_state()).items()}, path)
    lora = load_motion_lora(path)
    assert lora.spatial.keys() == spatial.keys() and len(lora.deltas) == len(lora_state()) // 2
    alone = tmp_path / "adapter.ckpt"
    torch.save({"state_dict": spatial, "animatediff_config": {}}, alone)
    adapter = load_motion_lora(alone)
    assert not adapter.deltas and adapter.spatial.keys() == spatial.keys()


# --- branches beside the weights


@pytest.fixture
def network():
    return randomized(MotionModel(slot_widths(), TemporalConfig()), seed=3).eval().requires_grad_(False)


def features(frames=4):
    return torch.randn(2 * frames, 32, 3, 3, generator=torch.Generator().manual_seed(8))


def run(network, x, frames=4):
    with network.during(network.frames_for(torch.arange(frames))):
        return network.slot_functions()["down_blocks.0.motion_modules.0"](x)


def test_branches_are_the_merged_weights(tmp_path, network):
    loras = [
        load_motion_lora(lora_file(tmp_path, "MotionDirector", name=f"{seed}.safetensors", seed=seed)).at(0.5) for seed in (1, 2)
    ]
    branches = [Branches(lora.deltas) for lora in loras]
    plain = run(network, features())
    for _ in range(2):  # the second time takes the place of the first
        install(network, branches)
    assert torch.equal(run(network, features()), plain), "silent until told"
    with branches[0].during(torch.tensor(1.0)), branches[1].during(torch.tensor(-0.5)):
        beside = run(network, features())
    assert branches[0].gain is None
    state = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(merged(state, [loras[0], loras[1].at(-0.5)]))
    remove(network)
    inside = run(network, features())
    torch.testing.assert_close(beside, inside, rtol=0, atol=1e-5 * float(inside.abs().max()))
    assert (inside - plain).abs().max() > 1e-2
    assert not [layer for layer in network.modules() if "forward" in layer.__dict__]


def test_a_gain_for_each_frame_reaches_that_frame_alone(tmp_path, network):
    """A layer's change is made frame by frame: with values alone changed, frames see each other only through them."""
    branches = Branches(load_motion_lora(lora_file(tmp_path)).deltas)
    layer = network.get_submodule(
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_v"
    )
    install(network, [branches])
    x = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(1))
    plain = layer(x)
    with branches.during(torch.tensor(1.0)):
        full = layer(x)
    with branches.during(torch.tensor([0.0, 1.0, 0.5, 0.0])):
        mixed = layer(x)
    torch.testing.assert_close(mixed[:, 1], full[:, 1])
    torch.testing.assert_close(mixed[:, 2], (plain[:, 2] + full[:, 2]) / 2)
    assert torch.equal(mixed[:, [0, 3]], plain[:, [0, 3]])
    with branches.during(torch.tensor([0.0, 1.0])), pytest.raises(ValueError, match="noise levels of their own"):
        layer(x)
    assert branches.gain is None


def test_a_branch_without_its_layer_leaves_nothing_behind(tmp_path, network):
    branches = Branches(load_motion_lora(lora_file(tmp_path, middle=True)).deltas)
    with pytest.raises(AttributeError):
        install(network, [branches])
    assert not [layer for layer in network.modules() if "forward" in layer.__dict__]


# --- on ComfyUI


@pytest.fixture
def animated(tmp_path):
    from pack.modules.checkpoints.motion import load_motion_module

    return host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))


def with_weights(tmp_path, state):
    """The same small model with a motion module of these weights."""
    from pack.modules.checkpoints.motion import load_motion_module

    tables = {key: value for key, value in motion_state().items() if key.endswith(".pe")}
    path = tmp_path / "merged.safetensors"
    save_file({key: value.contiguous() for key, value in (dict(state) | tables).items()}, path)
    return host.apply_motion(image_model(), load_motion_module(path))


def close(given, expected, tolerance=1e-5):
    torch.testing.assert_close(given, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def module_of(model):
    return model.get_additional_models_with_key("longtake_motion")[-1]


@pytest.mark.comfy
@pytest.mark.parametrize("strength", sparing([1.0, -1.0], -1.0))
@pytest.mark.parametrize("layout", ["original", "MotionDirector"])
def test_comfyui_merges_the_same(tmp_path, animated, layout, strength):
    before = {key: value.clone() for key, value in module_of(animated).model.state_dict().items()}
    plain = ksample(animated)
    lora = load_motion_lora(lora_file(tmp_path, layout))
    given = ksample(host.apply_motion_lora(animated, lora, strength))
    close(given, ksample(with_weights(tmp_path, merged(weights(), [lora.at(strength)]))))
    assert (given - plain).abs().max() > 0.01 * plain.abs().max(), "it must do something, or this test says nothing"
    assert torch.equal(ksample(animated), plain)
    after = module_of(animated).model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.comfy
def test_several_chain_and_branches_of_a_graph_do_not_see_each_other(tmp_path, animated):
    plain = ksample(animated)
    first, second = (load_motion_lora(lora_file(tmp_path, name=f"{seed}.safetensors", seed=seed)) for seed in (1, 2))
    one = host.apply_motion_lora(animated, first, 0.5)
    both = host.apply_motion_lora(one, second, -0.7, lambda slot: float(slot.startswith("up")))
    other = host.apply_motion_lora(animated, second)
    ups = second.at(-0.7, lambda slot: float(slot.startswith("up")))
    expected = [
        ksample(with_weights(tmp_path, merged(weights(), loras))) for loras in ([first.at(0.5)], [first.at(0.5), ups], [second])
    ]
    for model, wanted_latent in zip(
        (both, other, one, both.clone()), (expected[1], expected[2], expected[0], expected[1]), strict=True
    ):
        close(ksample(model), wanted_latent)
    assert torch.equal(ksample(animated), plain)
    assert torch.equal(ksample(host.apply_motion_lora(animated, first, 0.0)), plain)


@pytest.mark.comfy
def test_a_lora_of_v2_on_a_v3_module_says_how_much_of_it_fits(tmp_path, animated, caplog):
    lora = load_motion_lora(lora_file(tmp_path, middle=True))
    with caplog.at_level("INFO", "longtake"):
        given = host.apply_motion_lora(animated, lora)
    assert (
        f"lora.safetensors: {len(lora.deltas) - ATTENTIONS} of {len(lora.deltas)} weights fit module.safetensors" in caplog.text
    )
    close(ksample(given), ksample(with_weights(tmp_path, wanted_state(middle=True))))


def wanted_state(**options):
    return {key: value.float() for key, value in wanted(weights(), **options).items()}


@pytest.mark.comfy
def test_the_last_motion_module_takes_it(tmp_path, animated):
    from pack.modules.checkpoints.motion import load_motion_module

    twice = host.apply_motion(animated, load_motion_module(motion_file(tmp_path, name="second.safetensors", seed=4)))
    patched = host.apply_motion_lora(twice, load_motion_lora(lora_file(tmp_path)))
    first, second = patched.get_additional_models_with_key("longtake_motion")
    assert not first.patches and second.patches and not module_of(twice).patches


@pytest.mark.comfy
def test_a_domain_adapter_goes_to_the_image_model_by_itself(tmp_path, animated, caplog):
    import comfy.sd

    path = tmp_path / "v3_sd15_adapter.ckpt"
    torch.save({"state_dict": adapter_state(), "animatediff_config": {}}, path)
    adapter = load_motion_lora(path)
    with caplog.at_level("INFO"):
        styled = host.apply_motion_lora(animated, adapter, 0.8)
    assert f"{len(adapter.spatial) // 2} layers of the image model changed" in caplog.text
    assert "not loaded" not in caplog.text
    theirs, _ = comfy.sd.load_lora_for_models(animated, None, dict(adapter_state()), 0.8, 0)
    plain, given = ksample(animated), ksample(styled)
    assert torch.equal(given, ksample(theirs)) and not torch.equal(given, plain)
    still = host.apply_motion_lora(image_model(), adapter)  # needs no motion module
    assert still.patches


@pytest.mark.comfy
def test_a_file_with_both_halves_goes_both_ways(tmp_path, animated):
    path = tmp_path / "both.safetensors"
    save_file({key: value.contiguous() for key, value in (adapter_state() | lora_state()).items()}, path)
    both = host.apply_motion_lora(animated, load_motion_lora(path), 0.6)
    assert both.patches and module_of(both).patches


@pytest.mark.comfy
@pytest.mark.parametrize(
    ("start", "end", "acts"),
    sparing([(0.0, 0.4, (1, 0, 0)), (0.4, 1.0, (0, 1, 1)), (0.3, 0.7, (0, 1, 0))], (0.3, 0.7, (0, 1, 0))),
)
def test_a_schedule_acts_in_its_part_of_sampling_and_nowhere_else(tmp_path, animated, start, end, acts):
    """Three steps of Euler: the model that acts at each is known, so the steps can be made one by one."""
    lora = load_motion_lora(lora_file(tmp_path)).at(0.7)
    before = {key: value.clone() for key, value in module_of(animated).model.state_dict().items()}
    plain = ksample(animated)
    given = ksample(host.apply_motion_lora(animated, lora, 1.0, None, start, end))
    constant = host.apply_motion_lora(animated, lora)
    expected = stepwise([constant if on else animated for on in acts])
    close(given, expected)
    assert not torch.allclose(given, plain) and not torch.allclose(given, ksample(constant))
    assert torch.equal(ksample(animated), plain)
    after = module_of(animated).model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def stepwise(models, frames=6, cfg=2.0, seed=1, size=8):
    """``ksample`` with another model at each step: KSamplerAdvanced, one step at a time."""
    import nodes
    from tiny_motion import text

    latent = {"samples": torch.zeros(frames, 4, size, size)}
    for step, model in enumerate(models):
        more = "enable" if step + 1 < len(models) else "disable"
        noise = "enable" if step == 0 else "disable"
        with torch.inference_mode():
            latent = nodes.KSamplerAdvanced().sample(
                model, noise, seed, len(models), cfg, "euler", "normal", text(3), text(4), latent, step, step + 1, more
            )[0]
    return latent["samples"]


@pytest.mark.comfy
def test_scheduled_and_constant_ones_chain_and_leave_nothing(tmp_path, animated):
    first, second = (load_motion_lora(lora_file(tmp_path, name=f"{seed}.safetensors", seed=seed)) for seed in (1, 2))
    plain = ksample(animated)
    early = host.apply_motion_lora(animated, first, 0.5, None, 0.0, 0.4)
    late = host.apply_motion_lora(early, second, 0.5, None, 0.4, 1.0)
    both = host.apply_motion_lora(late, first, -0.5)
    one, two = host.apply_motion_lora(animated, first, 0.5), host.apply_motion_lora(animated, second, 0.5)
    close(ksample(late), stepwise([one, two, two]))
    minus = [host.apply_motion_lora(model, first, -0.5) for model in (one, two)]
    close(ksample(both), stepwise([minus[0], minus[1], minus[1]]))
    close(ksample(early), stepwise([one, animated, animated]))
    assert torch.equal(ksample(animated), plain)


@pytest.mark.comfy
def test_each_frame_is_scheduled_by_its_own_noise_level(tmp_path, animated):
    """One model call with frames at two levels: a frame's own level decides what its layers do."""
    from pack.host.comfyui.attach.motion_lora import SCHEDULED, Schedule

    scheduled = host.apply_motion_lora(animated, load_motion_lora(lora_file(tmp_path)), 1.0, None, 0.5, 1.0)
    patcher = scheduled.get_additional_models_with_key(SCHEDULED)[0]
    sampling = scheduled.get_model_object("model_sampling")
    half = sampling.percent_to_sigma(0.5)
    gain = patcher.get_attachment(SCHEDULED).gain(torch.tensor([2 * half, half, half / 2, 0.0]), sampling)
    assert gain.tolist() == [0, 1, 1, 1]
    assert Schedule(0, 0.0, 0.5).gain(torch.tensor([2 * half, half, 0.0]), sampling).tolist() == [1, 0, 0]

    seen = []

    def look(executor, *args, **kwargs):
        seen.append(patcher.model.gain)
        return executor(*args, **kwargs)

    from comfy.patcher_extension import WrappersMP

    scheduled.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", look)
    ksample(scheduled)
    assert [gain is None for gain in seen] == [True, False, False]
    assert patcher.model.gain is None


@pytest.mark.comfy
def test_frames_on_both_sides_of_its_end_inside_windows_are_refused_before_the_call(tmp_path, animated):
    from types import SimpleNamespace

    from pack.host.comfyui.attach.call_info import CallInfo
    from pack.host.comfyui.attach.motion_lora import BRANCHES
    from pack.host.comfyui.options import SAMPLING

    scheduled = host.apply_motion_lora(animated, load_motion_lora(lora_file(tmp_path)), 1.0, None, 0.0, 0.5)
    branches = scheduled.get_additional_models_with_key("longtake_motion_lora")[0].model

    def gain(**options):
        """What the branches are told in a call about two frames of two conditions, on both sides of the end."""
        sigmas = torch.tensor([20.0, 0.1] * 2)
        info = CallInfo.of(torch.zeros(4, 4, 8, 8), sigmas, {"cond_or_uncond": [0, 1], **options}, scheduled.model)
        info.inside["longtake_motion_lora"] = BRANCHES.inject(scheduled)
        with BRANCHES.call(info):
            return branches.gain

    assert gain().tolist() == [1, 0]
    windowed = SimpleNamespace(kept={"longtake_motion": SimpleNamespace(plan=object())})
    with pytest.raises(ValueError, match="leave Context Windows out") as error:
        gain(**{SAMPLING: windowed})
    one_sentence(error)
    assert branches.gain is None


@pytest.mark.comfy
def test_after_an_error_in_the_middle_nothing_acts(tmp_path, animated):
    from comfy.patcher_extension import WrappersMP

    plain = ksample(animated)
    scheduled = host.apply_motion_lora(animated, load_motion_lora(lora_file(tmp_path)), 1.0, None, 0.0, 0.9)
    broken = scheduled.clone()

    def fail(executor, *args, **kwargs):
        raise KeyboardInterrupt

    broken.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", fail)
    with pytest.raises(KeyboardInterrupt):
        ksample(broken)
    assert broken.get_additional_models_with_key("longtake_motion_lora")[0].model.gain is None
    assert torch.equal(ksample(animated), plain)


REFUSED = {
    "no motion module": (lambda folder: lora_file(folder), {}, "put Apply Motion Module before", False),
    "another base": (lambda folder: lora_file(folder, levels=(64, 128)), {}, "for another base model", True),
    "start after end": (lambda folder: lora_file(folder), {"start_percent": 0.6, "end_percent": 0.4}, "start below end", True),
    "nothing of sampling": (
        lambda folder: lora_file(folder),
        {"start_percent": 0.5, "end_percent": 0.5},
        "start below end",
        True,
    ),
    "beyond the end": (lambda folder: lora_file(folder), {"end_percent": 1.5}, "both from 0 to 1", True),
    "a scheduled adapter": (lambda folder: adapter_file(folder), {"end_percent": 0.5}, "cannot change during sampling", True),
    "an adapter by blocks": (
        lambda folder: adapter_file(folder),
        {"block_strength": lambda slot: 1.0},
        "leave blocks empty",
        True,
    ),
    "another image model's": (
        lambda folder: adapter_file(folder, foreign=True),
        {},
        "none of its 2 weights are in this one",
        True,
    ),
}


def adapter_file(folder, *, foreign=False):
    path = folder / "adapter.safetensors"
    foreign_state = {f"lora_unet_joint_blocks_0.lora_{side}.weight": torch.zeros(2, 2) for side in ("up", "down")}
    save_file(foreign_state if foreign else {key: value.contiguous() for key, value in adapter_state().items()}, path)
    return path


@pytest.mark.comfy
@pytest.mark.parametrize(("make", "options", "said", "moving"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_in_one_sentence(tmp_path, animated, make, options, said, moving):
    model = animated if moving else image_model()
    with pytest.raises(ValueError) as error:
        host.apply_motion_lora(model, load_motion_lora(make(tmp_path)), **options)
    assert said in one_sentence(error)
    assert not model.patches and not (moving and module_of(model).patches)


# --- standalone


def test_the_standalone_host_rebuilds_the_module(tmp_path):
    from pack.host.standalone.models import video_model as standalone
    from pack.host.standalone.motion_lora import apply_motion_lora
    from tiny import video_model

    model = standalone(video_model())
    state = model.motions[-1].state_dict()
    before = {key: value.clone() for key, value in state.items()}
    key = next(key for key in state if key.endswith("to_q.weight"))
    layer, (out, into) = key.removesuffix(".weight"), state[key].shape
    path = tmp_path / "lora.safetensors"
    up, down = torch.ones(out, 2), torch.ones(2, into)
    save_file({f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}, path)
    lora = load_motion_lora(path)
    changed = apply_motion_lora(model, lora, 0.25)
    torch.testing.assert_close(changed.motions[-1].state_dict()[key], before[key] + 0.25 * up @ down)
    assert all(torch.equal(value, before[key]) for key, value in model.motions[-1].state_dict().items())
    other = lora_file(tmp_path, levels=(64, 128), name="other.safetensors")
    for bad, said in (
        (other, "another base model than the model's motion module"),
        (adapter_file(tmp_path), "is not in this image model or of another size: use one for this base model"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            apply_motion_lora(model, load_motion_lora(bad))
        one_sentence(error)
    with pytest.raises(ValueError, match="from 0 to 0.5 of sampling"):
        apply_motion_lora(model, lora, end_percent=0.5)


# --- the node


def test_the_node_finds_files_of_both_folders(tmp_path, monkeypatch):
    from pack.nodes.motion.motion_lora import LongTakeApplyMotionLora

    places = {"motion_loras": tmp_path / "motion", "loras": tmp_path / "spatial"}
    for folder in places.values():
        folder.mkdir()
    lora_file(places["motion_loras"], name="zoom.safetensors")
    for folder in places.values():
        lora_file(folder, name="both.safetensors", seed=1 if folder == places["loras"] else 2)
    adapter_file(places["loras"])
    given = []
    monkeypatch.setattr(host, "files", lambda kind: sorted(path.name for path in places[kind].iterdir()), raising=False)
    monkeypatch.setattr(host, "file", lambda kind, name: places[kind] / name, raising=False)
    monkeypatch.setattr(host, "apply_motion_lora", lambda *values: given.append(values), raising=False)
    menu = next(item for item in LongTakeApplyMotionLora.define_schema().inputs if item.id == "lora_name")
    assert menu.options == ["both.safetensors", "zoom.safetensors", "adapter.safetensors"]
    for name in menu.options:
        LongTakeApplyMotionLora.execute(model="model", lora_name=name)
    assert [values[1].name for values in given] == menu.options
    assert [bool(values[1].spatial) for values in given] == [False, False, True]
    assert given[0][2:] == (1.0, None, 0.0, 1.0)
    first = next(iter(load_motion_lora(places["motion_loras"] / "both.safetensors").deltas.values()))
    assert torch.equal(next(iter(given[0][1].deltas.values())).up, first.up), "a name in both folders means the MotionLoRA"
