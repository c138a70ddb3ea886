"""UniPC-2 with a past per frame, against diffusers' scheduler run for each frame by itself."""

import pytest
import torch
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job, started
from pack.modules.sampling.multistep import Multistep, unipc
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.rollout import Rollout, rollout
from pack.modules.sampling.schedules import SCHEDULES

SHAPE, STEPS, FRAMES = (3, 4, 5), 7, 8


def finish(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def theirs(coordinates, steps=STEPS):
    diffusers = pytest.importorskip("diffusers")
    kind = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0} if coordinates == "flow" else {}
    made = diffusers.UniPCMultistepScheduler(num_train_timesteps=1000, **kind)
    made.set_timesteps(steps)
    return made


def guess(x, sigma, coordinates):
    """A denoiser that is none in particular, and not linear."""
    signal = 1 - sigma if coordinates == "flow" else 1
    return torch.tanh(signal * x / (signal**2 + sigma**2)) + 0.1 * torch.sin(3 * x)


def one_frame(x, coordinates):
    """Their scheduler over one frame, in our coordinates: theirs of diffusion models are divided by the length of (1, sigma)."""
    scheduler = theirs(coordinates)
    length = (1 + scheduler.sigmas**2).sqrt() if coordinates == "diffusion" else torch.ones(STEPS + 1)
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[step]
        clean = guess(x, sigma, coordinates)
        output = (x - clean) / sigma
        x = scheduler.step(output, timestep, x / length[step]).prev_sample * length[step + 1]
    return x


@pytest.mark.parametrize("coordinates", ["flow", "diffusion"])
def test_a_frame_goes_as_with_diffusers_scheduler(coordinates):
    sigmas = theirs(coordinates).sigmas
    x = started(torch.zeros(1, *SHAPE), frame_noise(SHAPE, 1, [0]), sigmas[0], coordinates)[0]
    wanted, past = one_frame(x, coordinates), None
    for before, after in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        x, past = unipc(x, guess(x, before, coordinates), before, after, past, coordinates)
    torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)


def denoise(coordinates):
    return lambda view: guess(view.x, view.sigma.view(-1, 1, 1, 1), coordinates)


@pytest.mark.parametrize("coordinates", ["flow", "diffusion"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_frame_goes_so_under_every_schedule(schedule, coordinates):
    levels = NoiseLevels.named(schedule, FRAMES, STEPS, lag=2.0, block=2, known=0)
    sigmas = theirs(coordinates).sigmas.flip(0)
    job = Job(denoise(coordinates), torch.zeros(FRAMES, *SHAPE), sigmas, seed=3, coordinates=coordinates)
    clip = finish(Forcing(levels, FRAMES, order="unipc")(job))
    noise = frame_noise(SHAPE, 3, range(FRAMES))
    for frame in range(FRAMES):
        start = started(torch.zeros(1, *SHAPE), noise[frame][None], sigmas[-1], coordinates)[0]
        torch.testing.assert_close(clip[frame], one_frame(start, coordinates), rtol=1e-4, atol=1e-4)


def test_from_a_level_without_signal():
    """ComfyUI's flow models begin at sigma 1, where the logarithm of the signal is no number."""
    x, past = unipc(torch.randn(4), torch.randn(4), 1.0, 0.9, None, "flow")
    x, _ = unipc(x, torch.randn(4), 0.9, 0.5, past, "flow")
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("row", [1, 4, 9])
def test_an_interrupted_take_goes_on_bit_for_bit(row):
    table = NoiseSchedule.named("cosine").levels(STEPS)
    plan = NoiseLevels.named("pyramid", FRAMES, STEPS, lag=2.0)
    job = Job(denoise("diffusion"), torch.zeros(FRAMES, *SHAPE), table, seed=3)
    how = Rollout(plan, 6, order="unipc")
    whole = [step.finished for step in rollout(job, how)]
    steps = rollout(job, how)
    state = [next(steps).state for _ in range(row)][-1]
    rest = [step.finished for step in rollout(job, how, state)]
    assert all(map(torch.equal, rest, whole[row:])) and len(rest) == len(whole) - row
    without = [step.finished for step in rollout(job, how, type(state)(state.row, state.ids, state.x))]
    assert not torch.equal(torch.cat(without), torch.cat(rest)), "what is remembered matters"


def test_nothing_is_remembered_of_frames_that_are_done():
    pasts, x = Multistep(), torch.randn(2, 4)
    pasts.step(x, x * 0.5, [3, 4], [2.0, 1.0], [1.0, 0.0], "diffusion")
    assert list(pasts.of) == [3]
    again = Multistep()
    again.restore(pasts.tensors() | {"other": torch.zeros(1)})
    assert torch.equal(again.of[3].begun, pasts.of[3].begun) and again.of[3].sigma == 2.0
    pasts.step(x[:1], x[:1], [3], [1.0], [0.0], "diffusion")
    assert pasts.tensors() == {}
