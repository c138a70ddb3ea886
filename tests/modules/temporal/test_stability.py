"""What keeps training from blowing up: normalised queries and keys, weights with a length of their own, scaled skips."""

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch
from pack.modules.checkpoints.video_model import VideoModelInfo, load_video_model
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.frames import Frames, Gain
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.normalise import QK_NORMS
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.temporal.windows import WindowPlan
from pack.modules.train.sigma_reparam import SigmaReparam, attention_layers, folded
from tiny_motion import randomized
from torch import nn

SLOT = "mid_block.motion_modules.0"
CHANNELS, HEADS, F = 32, 4, 6


def motion(seed=0, channels=CHANNELS, **config):
    return randomized(MotionModel({SLOT: channels}, TemporalConfig(heads=HEADS, groups=8, **config)), seed)


def attention(model):
    return model.at(SLOT).transformer_blocks[0].attention_blocks[0]


def tokens(n=3, f=F, seed=1):
    return torch.randn(n, f, CHANNELS, generator=torch.Generator().manual_seed(seed))


def pixels(seed=2, f=F):
    return torch.randn(f, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed))


# Normalised queries and keys


def by_hand(attend, kind, x, scale=None):
    """The attention of one layer without positions, in float64 and one step at a time."""
    x = x.double()
    q, k, v = (
        (x @ layer.weight.double().T).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for layer in (attend.to_q, attend.to_k, attend.to_v)
    )
    if kind == "l2":
        q, k = (y / y.norm(dim=-1, keepdim=True) for y in (q, k))
        k = k if scale is None else k * scale.double()[:, None]
        logits = attend.qk_norm.gain.double() * q @ k.transpose(-1, -2)
    else:
        q, k = (
            (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
            for y, norm in ((q, attend.qk_norm.q), (k, attend.qk_norm.k))
        )
        k = k if scale is None else k * scale.double()[:, None]
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    out = attend.to_out[0]
    return mixed @ out.weight.double().T + out.bias.double()


@pytest.mark.parametrize("kind", QK_NORMS)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_attention_is_the_formula(kind, scaled):
    attend = attention(motion(qk_norm=kind, positions="rotary"))
    scale = torch.linspace(0.5, 2, F) if scaled else None
    still = Frames(F, torch.zeros(F))  # at one time, so that the rotation does nothing
    given = attend(tokens(), still, scale)
    torch.testing.assert_close(given.double(), by_hand(attend, kind, tokens(), scale), atol=1e-5, rtol=1e-4)


def test_unit_length_bounds_the_logits_by_the_gain():
    attend = attention(motion(qk_norm="l2", positions="rotary"))
    with torch.no_grad():
        attend.qk_norm.gain.fill_(3.0)
        attend.to_q.weight.mul_(1e3)
    q, k, _ = attend.compared(attend.to_q(tokens()), attend.to_k(tokens()), torch.arange(F))
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    assert logits.abs().max() <= 3.0001
    assert logits.abs().max() > 1


def test_the_gain_starts_where_the_paper_says():
    assert QK_NORMS["l2"](8, nn).gain.item() == pytest.approx(math.log2(16**2 - 16))


@pytest.mark.parametrize("kind", QK_NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_huge_weights_have_finite_outputs_and_gradients(kind, dtype):
    """At a thousand times their size, where plain attention has no gradient left."""
    attend = attention(motion(qk_norm=kind))
    with torch.no_grad():
        attend.to_q.weight.mul_(1e3)
        attend.to_k.weight.mul_(1e3)
    attend.to(dtype)
    out = attend(tokens().to(dtype), Frames.of(F))
    out.float().square().mean().backward()
    for layer in (attend.to_q, attend.to_k):
        assert torch.isfinite(layer.weight.grad).all()
        assert layer.weight.grad.abs().max() > 0
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("kind", ["", *QK_NORMS])
@pytest.mark.parametrize("positions", ["sinusoid", "rotary", "shaw"])
def test_windows_and_scales_go_the_same_way(kind, positions):
    """One window over the whole clip is the clip, also where frames have scales of their own."""
    model = motion(qk_norm=kind, positions=positions)
    gain = Gain(scales=(torch.linspace(0.5, 1.5, F), None))
    whole, windowed = (
        model.frames_for(torch.arange(F), windows=windows)
        for windows in (None, WindowPlan("standard_static", length=F, overlap=2).windows(F))
    )
    with torch.no_grad():
        plain, through = (model.at(SLOT)(pixels(), frames, gain) for frames in (whole, windowed))
        unscaled = model.at(SLOT)(pixels(), whole)
    torch.testing.assert_close(plain, through, atol=1e-5, rtol=1e-4)
    assert (plain - unscaled).abs().max() > 1e-4, "a scale does something"


def test_without_it_a_module_has_the_weights_and_the_file_it_had():
    assert not [name for name in motion().state_dict() if "qk_norm" in name]
    info = tiny.info()
    assert "qk_norm" not in info.json()
    assert "skip_scale" not in info.json()
    assert json.loads(info.json())["version"] == 1
    assert VideoModelInfo.parse(info.json()) == info


@pytest.mark.parametrize("kind", QK_NORMS)
def test_a_file_says_that_it_wants_it(kind, tmp_path):
    video = tiny.video_model(temporal=TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", qk_norm=kind))
    video.save(tmp_path / "normalised.safetensors")
    loaded = load_video_model(tmp_path / "normalised.safetensors")
    assert loaded.info.temporal.qk_norm == kind
    assert json.loads(loaded.info.json())["version"] > 1
    assert any("qk_norm" in name for name in loaded.temporal)
    _, built = loaded.build()
    assert {name: value.shape for name, value in built.state_dict().items()} == {n: v.shape for n, v in loaded.temporal.items()}


def test_a_norm_that_is_not_known():
    with pytest.raises(ValueError, match="qk_norm is 'batch': choose one of l2, layer, or leave it empty"):
        TemporalConfig(qk_norm="batch")


@pytest.mark.comfy
@pytest.mark.parametrize("kind", QK_NORMS)
def test_comfyuis_layers_compute_the_same(kind):
    import comfy.ops

    ours = motion(qk_norm=kind)
    theirs = MotionModel({SLOT: CHANNELS}, ours.config, comfy.ops.manual_cast)
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        given, wanted = (model.at(SLOT)(pixels(), Frames.of(F)) for model in (theirs, ours))
    torch.testing.assert_close(given, wanted)


# Weights with a length of their own


def output(model):
    with torch.no_grad():
        return model.at(SLOT)(pixels(), Frames.of(F))


def trained(model, wrapped, steps=4):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        wrapped.iterate()
        optimizer.zero_grad()
        model.at(SLOT)(pixels(), Frames.of(F)).square().mean().backward()
        optimizer.step()


def test_wrapping_changes_nothing_and_folding_neither():
    model = motion()
    before, names = output(model), list(model.state_dict())
    wrapped = SigmaReparam(attention_layers(model))
    assert (output(model) - before).abs().max() < 1e-6
    trained(model, wrapped)
    during = output(model)
    assert (during - before).abs().max() > 1e-3
    wrapped.fold()
    assert torch.equal(output(model), during)
    assert sorted(model.state_dict()) == sorted(names)
    assert not any("parametrizations" in name for name, _ in model.named_modules())


def test_every_attention_layer_is_wrapped_and_nothing_else():
    names = set(attention_layers(motion()))
    assert len(names) == 2 * 4
    assert all("attention_blocks" in name for name in names)
    assert {name.rpartition("attention_blocks.")[2].split(".", 1)[1] for name in names} == {"to_q", "to_k", "to_v", "to_out.0"}


def test_the_gain_is_the_spectral_norm():
    model = motion()
    layers = attention_layers(model)
    norms = {name: torch.linalg.matrix_norm(layer.weight.detach(), 2) for name, layer in layers.items()}
    wrapped = SigmaReparam(layers)
    for gain, norm in zip(wrapped.gains(), norms.values(), strict=True):
        torch.testing.assert_close(gain.detach(), norm, rtol=1e-3, atol=0)
    trained(model, wrapped, steps=10)
    for (name, layer), gain in zip(layers.items(), wrapped.gains(), strict=True):
        norm = torch.linalg.matrix_norm(layer.weight.detach(), 2)
        torch.testing.assert_close(norm, gain.detach(), rtol=1e-2, atol=0, msg=name)


def test_the_length_of_the_weight_itself_does_not_matter():
    model = motion()
    wrapped = SigmaReparam(attention_layers(model))
    before = output(model)
    with torch.no_grad():
        for layer in wrapped.layers.values():
            layer.parametrizations.weight.original.mul_(37.0)
    torch.testing.assert_close(output(model), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(640, 640), (96, 32), (32, 96)])
def test_nothing_moves_while_nothing_trains(shape):
    """Of a wide matrix many directions are lengthened almost alike; one not quite the longest would shrink it as it turns."""
    layer = nn.Linear(shape[1], shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    before = layer.weight.detach().clone()
    wrapped = SigmaReparam({"to_q": layer})
    torch.testing.assert_close(wrapped.gains()[0].detach(), torch.linalg.matrix_norm(before, 2), rtol=1e-5, atol=0)
    for _ in range(20):
        wrapped.iterate()
    torch.testing.assert_close(layer.weight.detach(), before, rtol=1e-5, atol=1e-6)


def test_a_step_along_the_weight_has_no_gradient():
    """What is left is turning: the gradient is orthogonal to the weight."""
    model = motion()
    wrapped = SigmaReparam(attention_layers(model))
    wrapped.iterate()
    model.at(SLOT)(pixels(), Frames.of(F)).square().mean().backward()
    for name, layer in wrapped.layers.items():
        weight = layer.parametrizations.weight.original
        cosine = (weight * weight.grad).sum() / (weight.norm() * weight.grad.norm())
        assert cosine.abs() < 1e-3, name


def test_the_same_run_twice_is_the_same_bit_for_bit():
    states = []
    for _ in range(2):
        model = motion()
        trained(model, SigmaReparam(attention_layers(model)))
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_resumes_bit_for_bit():
    """From its parameters and directions, and from nothing else."""
    model = motion()
    wrapped = SigmaReparam(attention_layers(model))
    trained(model, wrapped, steps=2)
    parameters, directions = {name: value.detach().clone() for name, value in model.named_parameters()}, wrapped.state()
    trained(model, wrapped, steps=2)
    other = motion(seed=8)
    resumed = SigmaReparam(attention_layers(other))
    other.load_state_dict(parameters, strict=False)
    resumed.restore(directions)
    trained(other, resumed, steps=2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="the saved directions are of other layers"):
        resumed.restore({name: value for name, value in directions.items() if "to_q" not in name})


def test_a_state_that_is_still_wrapped_can_be_folded_by_itself():
    """As the file of averaged weights needs it, while training goes on."""
    model = motion()
    names = sorted(model.state_dict())
    wrapped = SigmaReparam(attention_layers(model))
    trained(model, wrapped)
    state = model.state_dict()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    for plain in (folded(state), folded(parameters, state)):
        assert sorted(plain) == names
        other = motion(seed=9)
        other.load_state_dict(plain)
        torch.testing.assert_close(output(other), output(model))


def test_what_cannot_be_wrapped():
    model = motion()
    with torch.no_grad():
        attention(model).to_k.weight.zero_()
    with pytest.raises(ValueError, match=r"to_k is all zero or not finite"):
        SigmaReparam(attention_layers(model))
    assert not any("parametrizations" in name for name in model.state_dict()), "and nothing else is"
    with pytest.raises(ValueError, match="no temporal attentions"):
        SigmaReparam(attention_layers(nn.Linear(2, 2)))
    other = motion()
    SigmaReparam(attention_layers(other))
    with pytest.raises(ValueError, match="is reparametrised already: fold it first"):
        SigmaReparam(attention_layers(other))


# Scaled skips


def test_deeper_skips_are_scaled_more():
    config = replace(UNetConfig(), skip_scale=0.7)
    wanted = [0.7**level for level in (3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0)]
    assert config.skip_scales() == pytest.approx(wanted)
    assert set(UNetConfig().skip_scales()) == {1.0}
    with pytest.raises(ValueError, match="skip_scale is 0"):
        UNetConfig(skip_scale=0)


def test_a_scaled_skip_is_what_the_block_gets():
    """Each block of the way up is given its skip times the power of its level, and the rest of the network is the same."""
    plain, scaled = tiny.unet(), tiny.unet(skip_scale=0.5)
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    came: dict[str, list] = {"plain": [], "scaled": []}
    for name, unet in (("plain", plain), ("scaled", scaled)):
        for block in unet.output_blocks:
            block.register_forward_pre_hook(lambda _, args, name=name: came[name].append(args[0]))
    with torch.no_grad():
        outputs = [unet(x, t) for unet in (plain, scaled)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    torch.testing.assert_close(came["scaled"][0][:, :64], came["plain"][0][:, :64])  # what comes from the middle block
    for given, wanted, scale in zip(came["scaled"], came["plain"], scaled.config.skip_scales(), strict=True):
        torch.testing.assert_close(given[:, -32:], scale * wanted[:, -32:])  # skips come last, and are 32 channels at least


def test_scaling_by_one_is_the_network_as_it_was():
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    with torch.no_grad():
        assert torch.equal(tiny.unet()(x, t), tiny.unet(skip_scale=1.0)(x, t))


def test_a_file_says_that_its_skips_are_scaled(tmp_path):
    shape = tiny.config(in_channels=48, out_channels=48, label_channels=len(tiny.LABELS), skip_scale=0.7)
    tiny.video_model(unet=shape).save(tmp_path / "scaled.safetensors")
    assert load_video_model(tmp_path / "scaled.safetensors").info.unet.skip_scale == 0.7


@pytest.mark.comfy
def test_comfyui_scales_them_too():
    """Its U-Net knows nothing of it: a patch of the way up does it."""
    from native import ask, label, noise, standalone
    from pack import host

    shape = tiny.config(in_channels=48, out_channels=48, label_channels=len(tiny.LABELS), skip_scale=0.5)
    video = tiny.video_model(unet=shape)
    x, sigma = noise(), torch.linspace(0.1, 5, len(noise()))
    given = ask(host.video_model(video), label(), x=x, sigma=sigma)
    wanted = standalone(video, x, sigma, label()[0][1]["pooled_output"])
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    other = standalone(
        replace(video, info=replace(video.info, unet=replace(shape, skip_scale=1.0))), x, sigma, label()[0][1]["pooled_output"]
    )
    assert (wanted - other).abs().max() > 1e-3
