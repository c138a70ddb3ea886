"""What AnimateDiff and MotionDirector train, as tasks: what trains, what stays, and what comes out as a file."""

from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.export import save
from pack.modules.checkpoints.motion_lora import MotionLora, load_motion_lora, merged
from pack.modules.checkpoints.video_model import new_networks
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.temporal.gradients import checkpointed
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.train.denoising import Batch, Objective
from pack.modules.train.engine import Run, train
from pack.modules.train.lora import image_projections
from pack.modules.train.losses import LossSettings
from pack.modules.train.native import frozen, native_network
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.domain_adapter import domain_adapter
from pack.modules.train.tasks.image_model import image_model
from pack.modules.train.tasks.low_rank import single_frames
from pack.modules.train.tasks.motion_lora import motion_lora
from pack.modules.train.tasks.motion_lora_dual import dual_path
from pack.modules.train.tasks.motion_module import motion_module
from pack.modules.train.trainable import TaskContext
from tiny import LABELS, info, seeded

FRAMES = 5
SETTINGS = RunSettings(steps=3, batch=4, learning_rate=5e-3, warmup=1, ema=0.0)


def source(step, places):
    drawn = [torch.Generator().manual_seed(1000 * step + place) for place in places]
    start = torch.stack([torch.randn(1, 48, 4, 4, generator=g) for g in drawn])
    ramp = torch.linspace(0, 1, FRAMES).view(1, FRAMES, 1, 1, 1)
    return Batch(start * (1 - ramp), labels=torch.stack([torch.rand(len(LABELS), generator=g) for g in drawn]))


class World:
    """A frozen image model with a motion model in its slots."""

    def __init__(self, **objective):
        self.about = info(prediction="v")
        with seeded(1):
            self.unet, _ = new_networks(self.about)
        with seeded(2):
            self.motion = MotionModel(widths(self.unet), TemporalConfig(heads=2, attentions=2, groups=8))
        frozen(self.unet, self.motion)
        schedule = NoiseSchedule.named(self.about.noise_schedule)
        network = native_network(self.about, self.unet, [self.motion])
        self.context = TaskContext(network, source, schedule, Objective("v", **objective), SETTINGS, {"base": "tiny"})

    def shown(self):
        batch = source(99, range(2))
        sigma = torch.full((2, FRAMES), 1.5)
        with torch.no_grad():
            return self.context.network(batch.clips + sigma[..., None, None, None], sigma, batch)

    def state(self):
        parts = {"unet": self.unet, "motion": self.motion}
        return {f"{p}.{key}": value.clone() for p, part in parts.items() for key, value in part.state_dict().items()}


def changed(world, before):
    return {key for key, value in world.state().items() if not torch.equal(value, before[key])}


def trained(trainable, settings=SETTINGS):
    run = Run(trainable.task, settings)
    list(train(run))
    return run


@pytest.mark.parametrize("train_blocks", [(), ("down_blocks", "mid_block")])
def test_a_motion_module_starts_as_nothing_and_only_its_blocks_move(train_blocks):
    world, alone = World(), World()
    alone.context = replace(alone.context, network=native_network(alone.about, alone.unet))
    trainable = motion_module(world.context, world.motion, train_blocks)
    before, first = world.state(), world.shown()
    assert torch.equal(first, alone.shown())
    run = trained(trainable)
    moved = changed(world, before)
    assert moved and all(key.startswith(tuple(f"motion.{word}" for word in train_blocks or ("",))) for key in moved)
    assert not torch.equal(world.shown(), first)
    tensors, _ = trainable.file(run.weights())
    assert {key for key in tensors if not key.endswith("pos_encoder.pe")} == set(world.motion.state_dict())
    assert set(trainable.file(run.weights(), "LongTake")[0]) == set(world.motion.state_dict())
    with pytest.raises(ValueError, match="the file format 'x' is not known here: choose one of AnimateDiff, diffusers, LongTake"):
        trainable.file(run.weights(), "x")


def test_a_motion_module_goes_on_from_weights_and_refuses_others():
    world, other = World(), World()
    start = {key: value + 0.01 for key, value in other.motion.state_dict().items()}
    motion_module(world.context, world.motion, start=start)
    assert all(torch.equal(value, start[key]) for key, value in world.motion.state_dict().items())
    key, value = start.popitem()
    with pytest.raises(ValueError, match=f"1 weights are missing, extra or of another shape, first {key}"):
        motion_module(world.context, world.motion, start=start)
    with pytest.raises(ValueError, match="does not fit"):
        motion_module(world.context, world.motion, start={**start, key: value[..., :-1]})
    with pytest.raises(ValueError, match="'sideways', where there is no motion module"):
        motion_module(world.context, world.motion, ["sideways"])


def test_a_reparametrised_motion_module_is_a_plain_file_of_what_trained():
    world, plain = World(), World()
    start = {key: value + 0.01 for key, value in plain.motion.state_dict().items()}
    plain.motion.load_state_dict(start)
    trainable = motion_module(world.context, world.motion, ["down_blocks"], start, sigma_reparam=True)
    torch.testing.assert_close(world.shown(), plain.shown(), rtol=1e-5, atol=1e-6)
    lengths = trainable.task.undecayed()
    assert lengths and all(name.startswith("motion.down_blocks") and name.endswith(".gamma") for name in lengths)
    directions = trainable.task.tensors()
    run = trained(trainable)
    assert all(not torch.equal(value, directions[name]) for name, value in trainable.task.tensors().items()), (
        "followed as weights turn"
    )
    tensors, _ = trainable.file(run.weights(), "LongTake")
    assert set(tensors) == set(start) and {key for key in start if not torch.equal(tensors[key], start[key])} >= {
        name.removeprefix("motion.").replace("parametrizations.weight.0.gamma", "weight") for name in lengths
    }
    with trainable.with_weights(run.weights()):
        shown = world.shown()
    plain.motion.load_state_dict(tensors)
    torch.testing.assert_close(plain.shown(), shown, rtol=1e-5, atol=1e-6)
    assert trainable.task.description()["sigma_reparam"] is True
    assert "sigma_reparam" not in motion_module(plain.context, plain.motion).task.description()


def test_a_motion_lora_leaves_all_else_and_is_a_file_that_does_the_same(tmp_path):
    world = World(loss=LossSettings("debiased"))
    before, first = world.state(), world.shown()
    trainable = motion_lora(world.context, world.motion, 4)
    assert torch.equal(world.shown(), first)
    weights = trained(trainable).weights()
    assert not changed(world, before)
    after = world.shown()
    with trainable.with_weights(strength=0.0):
        torch.testing.assert_close(world.shown(), first)
    with trainable.with_weights(strength=-1.0):
        turned = world.shown()
    assert not torch.allclose(after, first) and not torch.allclose(turned, first) and not torch.allclose(turned, after)
    for layout in trainable.file_formats:
        path = tmp_path / f"{layout}.safetensors"
        save(path, *trainable.file(weights, layout))
        fresh = World()
        fresh.motion.load_state_dict(merged(fresh.motion.state_dict(), [load_motion_lora(path)]))
        torch.testing.assert_close(fresh.shown(), after, rtol=1e-4, atol=1e-4)


def test_weights_are_shown_for_a_while():
    world = World()
    trainable = motion_lora(world.context, world.motion, 2)
    run = trained(trainable)
    after, weights = world.shown(), run.weights()
    with pytest.raises(KeyError), trainable.with_weights({name: torch.zeros_like(value) for name, value in weights.items()}):
        torch.testing.assert_close(world.shown(), World().shown())
        raise KeyError
    assert torch.equal(world.shown(), after)
    assert all(torch.equal(value, weights[name]) for name, value in run.task.parameters().items())


def test_a_lora_of_some_slots():
    world = World()
    trainable = motion_lora(world.context, world.motion, 2, ["mid_block"])
    names = trainable.deltas(trained(trainable).weights())
    assert names and all(name.startswith("mid_block.") for name in names)
    with pytest.raises(ValueError, match="no adapter is trained here: there is lora"):
        trainable.deltas({}, "adapter")


def test_the_paths_of_motion_director_do_not_mix():
    """The looks learn from single frames alone, without the MotionLoRA; the MotionLoRA learns with the looks, which stay constant."""
    world = World(loss=LossSettings("debiased"))
    trainable = dual_path(world.context, world.motion, image_projections(world.unet), 4, looks_rank=2)
    looks, moving = trainable.task.tasks
    lora, appearance = trainable.branches["lora"], trainable.branches["appearance"]
    generator = torch.Generator().manual_seed(5)
    for parameter in trainable.task.parameters().values():
        torch.nn.init.normal_(parameter, 0, 0.2, generator=generator)
    looks.losses(0, range(4)).sum().backward()
    assert all(parameter.grad is None for parameter in lora.parameters())
    assert all(parameter.grad is not None for parameter in appearance.parameters())
    before = moving.losses(0, range(4)).detach()
    trainable.task.losses(0, range(4))
    appearance.zero_grad(set_to_none=True)
    moving.losses(0, range(4)).sum().backward()
    assert all(parameter.grad is None for parameter in appearance.parameters())
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in lora.parameters())
    for part in appearance.parts:
        torch.nn.init.zeros_(part.up.weight)
    assert not torch.allclose(moving.losses(0, range(4)), before)  # the looks act in it


def test_motion_director_keeps_the_motion_alone():
    world = World(loss=LossSettings("debiased"))
    before = world.state()
    trainable = dual_path(world.context, world.motion, image_projections(world.unet), 4)
    weights = trained(trainable, replace(SETTINGS, learning_rate=2e-2)).weights()
    assert not changed(world, before)
    tensors, _ = trainable.file(weights)
    assert all(".motion_modules." in name for name in tensors)
    kept = MotionLora("kept", trainable.deltas(weights))
    assert all(".attn2." not in name for name in trainable.deltas(weights, "appearance"))
    fresh = World()
    fresh.motion.load_state_dict(merged(fresh.motion.state_dict(), [kept]))
    with trainable.with_weights():
        torch.testing.assert_close(world.shown(), fresh.shown(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(world.shown(), fresh.shown(), atol=1e-4)  # while training, the looks act too


def test_a_domain_adapter_sees_single_frames_and_is_a_lora_file():
    world = World()
    seen = []
    network = world.context.network

    def watched(x, sigma, batch):
        seen.append(tuple(x.shape))
        return network(x, sigma, batch)

    before = world.state()
    trainable = domain_adapter(replace(world.context, network=watched), image_projections(world.unet), 2)
    weights = trained(trainable).weights()
    assert set(seen) == {(4, 1, 48, 4, 4)} and not changed(world, before)
    tensors, _ = trainable.file(weights)
    assert "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight" in tensors
    assert any(value.abs().max() > 0 for name, value in tensors.items() if ".up." in name)


def test_an_image_model_trains_whole_on_single_frames():
    world = World()
    frozen(world.motion)
    before = world.state()
    context = replace(world.context, network=native_network(world.about, world.unet))
    trainable = image_model(context, world.unet)
    weights = trained(trainable).weights()
    moved = changed(world, before)
    assert moved and all(key.startswith("unet.") for key in moved)
    tensors, _ = trainable.file(weights)
    assert all(torch.equal(value, world.unet.state_dict()[key]) for key, value in tensors.items())


def test_single_frames_are_the_clips_own_and_do_not_hang_on_the_batch():
    drawn = single_frames(source, seed=3)
    whole, clips = drawn(7, range(6)), source(7, range(6)).clips
    assert whole.clips.shape == (6, 1, 48, 4, 4)
    assert all(any(torch.equal(frame, other) for other in clip) for (frame,), clip in zip(whole.clips, clips, strict=True))
    torch.testing.assert_close(torch.cat([drawn(7, range(2)).clips, drawn(7, range(2, 6)).clips]), whole.clips)
    places = {int((clips == frame[:, None]).flatten(2).all(2).int().argmax()) for frame in whole.clips}
    assert len(places) > 1


def test_frames_keep_their_own_conditions():
    def told(step, places):
        rows = torch.arange(len(places) * FRAMES, dtype=torch.float32).view(len(places), FRAMES)
        return Batch(
            rows[..., None, None, None].expand(-1, -1, 1, 2, 2),
            context=rows[..., None, None].clone(),
            labels=rows[..., None].clone(),
        )

    batch = single_frames(told, 0)(0, range(3))
    assert torch.equal(batch.context[:, 0, 0], batch.clips[:, 0, 0, 0, 0])
    assert torch.equal(batch.labels[:, 0], batch.clips[:, 0, 0, 0, 0])


def test_layers_that_compute_again_know_what_the_branches_were_told():
    """Gradients of MotionDirector's two paths come back after both calls are over."""
    gradients = []
    for recompute in (False, True):
        world = World(loss=LossSettings("debiased"))
        trainable = dual_path(world.context, world.motion, image_projections(world.unet), 2)
        with seeded(5):
            for parameter in trainable.task.parameters().values():
                torch.nn.init.normal_(parameter, 0, 0.05)
        if recompute:
            with checkpointed(world.unet, [world.motion], [world.motion, *trainable.holders]):
                trainable.task.losses(0, range(2)).sum().backward()
        else:
            trainable.task.losses(0, range(2)).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in trainable.task.parameters().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rank", "sentence"), [(0, "rank is 0"), (1000, "rank is 1000")])
def test_a_rank_that_no_layer_has_is_refused(rank, sentence):
    world = World()
    layers = image_projections(world.unet)
    for make in (
        lambda: motion_lora(world.context, world.motion, rank),
        lambda: dual_path(world.context, world.motion, layers, rank),
        lambda: domain_adapter(world.context, layers, rank),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
