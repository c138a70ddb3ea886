"""Training a SparseCtrl encoder: it begins with no effect, nothing but it changes, and which frames it is shown hangs on the seed alone."""

import pytest
import torch
from pack.modules.control.sparsectrl import SparseControl
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.denoising import Batch, Objective
from pack.modules.train.engine import Run, train
from pack.modules.train.native import frozen, native_network
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.sparse_control import (
    CONDITION,
    PICTURES,
    conditions,
    drawn,
    led_at,
    residuals_of,
    sparse_config,
    sparse_control,
    with_keyframes,
)
from pack.modules.train.trainable import TaskContext
from tiny import seeded, video_model

F = 6


@pytest.fixture(scope="module")
def parts():
    video = video_model()
    unet, motion = video.build()
    with seeded(4):
        control = SparseControl(sparse_config(video.info)).started(unet, motion)
    return video.info, unet, motion, control


def batch(step=0, places=range(2)):
    """Latents and labels, the same for a step and place."""
    generators = [torch.Generator().manual_seed(100 * step + place) for place in places]
    clips = torch.stack([torch.randn(F, 48, 4, 4, generator=g) for g in generators])
    return Batch(clips, labels=torch.eye(4)[[place % 4 for place in places]])


def keyed(frames=(0, -1)):
    return led_at(batch(), frames)


def led_network(info, unet, motion, control):
    return native_network(info, unet, [motion], added=residuals_of(control, NoiseSchedule.named(info.noise_schedule)))


def test_every_number_of_keyframes_is_drawn_and_a_batch_may_be_cut_up():
    rows = torch.cat([drawn(F, 3, step, range(8)) for step in range(30)])
    assert set(rows.flatten().tolist()) == {0.0, 1.0}
    counts = rows.sum(dim=1)
    assert counts.min() == 1 and counts.max() == F
    assert torch.bincount(counts.long(), minlength=F + 1)[1:].min() > 20, "evenly from one to all: 40 of 240 each"
    assert rows.mean(dim=0).min() > 0.45, "no place is left out"
    assert torch.equal(drawn(F, 3, 7, range(2, 5)), drawn(F, 3, 7, range(8))[2:5])
    assert not torch.equal(drawn(F, 4, 7, range(8)), drawn(F, 3, 7, range(8)))
    made = with_keyframes(batch, 3)(7, range(1, 3))
    clips, shown = batch(7, range(1, 3)).clips, drawn(F, 3, 7, range(1, 3))
    assert torch.equal(made.extra[CONDITION], conditions(clips, shown)) and torch.equal(made.clips, clips)


def test_other_frames_are_hidden():
    shown = keyed()
    condition = shown.extra[CONDITION]
    assert condition.shape == (2, F, 49, 4, 4)
    assert torch.equal(condition[:, [0, 5], :-1], shown.clips[:, [0, 5]]) and not condition[:, 1:5].any()
    assert condition[:, [0, 5], -1].eq(1).all()
    pictures = torch.rand(2, F, 3, 8, 8)
    other = led_at(Batch(shown.clips, extra={PICTURES: pictures, "more": pictures}), (0,))
    assert torch.equal(other.extra[CONDITION][:, 0, :-1], pictures[:, 0]) and set(other.extra) == {CONDITION, "more"}


def test_at_the_start_it_changes_nothing_and_later_every_frame(parts):
    info, unet, motion, control = parts
    x, sigma = torch.randn(2, F, 48, 4, 4, generator=torch.Generator().manual_seed(1)), torch.full((2, F), 2.0)
    with torch.no_grad():
        led = led_network(info, unet, motion, control)(x, sigma, keyed())
        torch.testing.assert_close(led, native_network(info, unet, [motion])(x, sigma, batch()), rtol=0, atol=1e-6)
        some = SparseControl(sparse_config(info)).started(unet, motion)
        for convolution in (*some.zero_convs, some.middle_block_out):
            torch.nn.init.dirac_(convolution.weight)
        one, other = (led_network(info, unet, motion, some)(x, sigma, keyed(frames)) for frames in ((0, -1), (0,)))
    assert ((one - other).abs().amax(dim=(2, 3, 4)) > 1e-6).all()


def test_it_begins_as_a_copy(parts):
    _, unet, motion, control = parts
    assert torch.equal(control.input_blocks[1][0].in_layers[2].weight, unet.input_blocks[1][0].in_layers[2].weight)
    name = next(iter(control.motion.names))
    mine, theirs = (model.at(name).transformer_blocks[0].attention_blocks[0].to_q.weight for model in (control.motion, motion))
    assert torch.equal(mine, theirs)


def test_only_the_encoder_is_trained(parts):
    info, unet, motion, control = parts
    before = {name: value.clone() for name, value in (*unet.state_dict().items(), *motion.state_dict().items())}
    settings = RunSettings(steps=3, batch=2, learning_rate=1e-3, warmup=0, seed=1)
    frozen(unet, motion)
    network, schedule = led_network(info, unet, motion, control), NoiseSchedule.named(info.noise_schedule)
    task = sparse_control(TaskContext(network, batch, schedule, Objective(info.prediction), settings), control).task
    assert set(task.parameters()) == {f"control.{name}" for name, _ in control.named_parameters()}
    run = Run(task, settings)
    losses = [step.loss for step in train(run)]
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    after = dict((*unet.state_dict().items(), *motion.state_dict().items()))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert control.zero_convs[1].weight.abs().max() > 1e-4 and control.middle_block_out.weight.abs().max() > 1e-4
    control.zero()
