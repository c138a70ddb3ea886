"""FIFO-Diffusion against a queue written out by hand, and against what theory says of its partitions."""

import math

import pytest
import torch
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.fifo import Fifo, Queue
from pack.modules.sampling.job import Job
from pack.modules.sampling.rollout import Rollout, rollout

SHAPE, SEED = (2, 3), 7
TABLE = NoiseSchedule.named("cosine")


def finish(generator):
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return end.value, steps


def coupled(view):
    """Frames of a window see each other: each is drawn to the mean of those before it, the more the noisier it is."""
    clean = view.x / (1 + view.sigma[:, None, None] ** 2)
    before = clean.cumsum(0) / torch.arange(1, len(clean) + 1)[:, None, None]
    return torch.lerp(clean, before.sin(), view.sigma[:, None, None] / (1 + view.sigma[:, None, None]))


def job(frames, steps, *, denoise=coupled, **more):
    return Job(denoise, torch.zeros(frames, *SHAPE), TABLE.levels(steps), seed=SEED, **more)


def run(frames, *, partitions=2, window=4, lookahead=False, eta=0.0, base=None, **more):
    return finish(Fifo(partitions, window, lookahead, eta, base)(job(frames, more.pop("steps", partitions * window), **more)))


# By hand


class Slot:
    def __init__(self, frame, level, x):
        self.frame, self.level, self.x = frame, level, x


class ByHand:
    """A list of slots, as the paper's Algorithm 1 and Figure 4 have it, with the two defects of the code mended."""

    def __init__(self, partitions, window, lookahead, eta):
        self.n, self.f, self.lookahead, self.eta = partitions, window, lookahead, eta
        self.steps = partitions * window
        self.sigmas = TABLE.levels(self.steps)
        self.half = window // 2 if lookahead else 0
        self.calls = []

    def noise(self, frame, purpose="start"):
        return frame_noise(SHAPE, SEED, [frame], purpose)[0]

    def pure(self, frame):
        return Slot(frame, self.steps, self.noise(frame) * (1 + self.sigmas[-1] ** 2).sqrt())

    def from_clip(self, clip, frames):
        spare = self.steps - self.f
        queue = [Slot(i - spare - self.half, 0, clip[0]) for i in range(self.half)]
        for i in range(self.steps):
            level = i + 1
            queue.append(Slot(i - spare, level, clip[max(0, i - spare)] + self.sigmas[level] * self.noise(i - spare)))
        outputs = []
        for _ in range(frames + spare):
            for r in reversed(range(2 * self.n if self.lookahead else self.n)):
                start = r * (self.f // 2 if self.lookahead else self.f)
                window = queue[start : start + self.f]
                self.denoise(window, window[self.f // 2 :] if self.lookahead else window)
            outputs.append(queue[self.half])
            queue = [*queue[1:], self.pure(queue[-1].frame + 1)]
        return outputs[spare:]

    def from_noise(self, frames):
        """The queue fills up: at pass m the frames up to m move; windows stay within what there is."""
        step = self.f // 2 if self.lookahead else self.f
        queue, outputs, done = [self.pure(i) for i in range(self.steps)], [], 0
        for row in range(self.steps + frames - 1):
            for r in reversed(range(self.steps // step)):
                end = done + (r + 1) * step
                start = max(0, end - self.f)
                moving = [slot for slot in queue[end - step : end] if slot.frame <= row]
                if moving:
                    self.denoise(queue[start : start + self.f], moving)
            if queue[done].level == 0:
                outputs.append(queue[done])
                done += 1
                queue.append(self.pure(len(queue)))
        return outputs

    def denoise(self, window, moving):
        sigma, xs = [], []
        for slot in window:
            if slot.level == 0:  # finished: shown with the noise of the lowest level
                sigma.append(self.sigmas[1])
                xs.append(slot.x + self.sigmas[1] * self.noise(slot.frame, "stabilise"))
            else:
                sigma.append(self.sigmas[slot.level])
                xs.append(slot.x)
        self.calls.append(([slot.frame for slot in window], [slot.level for slot in window], [slot.frame for slot in moving]))
        clean = coupled(type("View", (), {"x": torch.stack(xs), "sigma": torch.stack(sigma)}))
        for slot, guess in zip(window, clean, strict=True):
            if slot in moving:
                before, after = self.sigmas[slot.level], self.sigmas[slot.level - 1]
                up = self.eta * after * (1 - (after / before) ** 2).sqrt()
                down = (after**2 - up**2).clamp_min(0).sqrt()
                slot.x = guess + (slot.x - guess) * down / before + up * self.noise(slot.frame, f"level {slot.level}")
                slot.level -= 1


SHAPES = [(1, 4, False), (2, 4, False), (3, 2, False), (1, 4, True), (2, 4, True), (3, 6, True)]


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("start", ["clip", "noise"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_queue_by_hand(shape, start, eta):
    frames, seen = 7, []
    hand = ByHand(*shape, eta)
    base = torch.randn(shape[1], *SHAPE, generator=torch.Generator().manual_seed(1)) if start == "clip" else None
    wanted = hand.from_clip(base, frames) if start == "clip" else hand.from_noise(frames)

    def denoise(view):
        times = view.ids if view.times is None else view.times
        seen.append((times.tolist(), view.sigma))
        return coupled(view)

    partitions, window, lookahead = shape
    clip, steps = run(frames, partitions=partitions, window=window, lookahead=lookahead, eta=eta, base=base, denoise=denoise)
    assert [slot.frame for slot in wanted] == list(range(frames)), "warm-up is not among them"
    torch.testing.assert_close(clip, torch.stack([slot.x for slot in wanted]), rtol=1e-5, atol=1e-5)
    assert [ids for ids, _ in seen] == [ids for ids, _, _ in hand.calls], "the same windows in the same order"
    for (_, sigma), (_, levels, _) in zip(seen, hand.calls, strict=True):
        torch.testing.assert_close(sigma, hand.sigmas[torch.tensor(levels).clamp_min(1)])
    assert len(steps) == len(hand.calls) == steps[-1].total == steps[-1].row
    assert [int(step.ids) for step in steps if len(step.ids)] == list(range(frames)), "frames come in order"


def test_the_windows_of_the_papers_figure():
    """8 levels, windows of 4, lookahead: reversed order, only the noisier half moves."""
    queue = Queue(1, 2, 4, True, full=True)
    calls = list(queue.one_pass(number := queue.passes[0] + 20))
    first = number - queue.steps + 1
    assert [(call.ids - first).tolist() for call in calls] == [[4, 5, 6, 7], [2, 3, 4, 5], [0, 1, 2, 3], [-2, -1, 0, 1]]
    assert [call.before.tolist() for call in calls] == [[5, 6, 7, 8], [3, 4, 5, 6], [1, 2, 3, 4], [0, 0, 1, 2]]
    assert [(call.before - call.after).tolist() for call in calls] == [[0, 0, 1, 1]] * 4
    plain = [(call.before.tolist(), call.after.tolist()) for call in Queue(1, 2, 4, False, full=True).one_pass(20)]
    assert plain == [([5, 6, 7, 8], [4, 5, 6, 7]), ([1, 2, 3, 4], [0, 1, 2, 3])]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_costs_what_theory_says(shape, full):
    """Partitions calls per frame, twice as many with lookahead; and the queue to be warmed up or filled."""
    partitions, window, lookahead = shape
    frames = 11
    queue, longer = Queue(frames, *shape, full), Queue(frames + 1, *shape, full)
    counted = [len(list(queue.one_pass(number))) for number in queue.passes]
    per_frame = partitions * (2 if lookahead else 1)
    assert counted[-1] == per_frame and sum(counted) == queue.rows_total
    assert longer.rows_total - queue.rows_total == per_frame
    if full:
        assert len(counted) == frames + queue.steps - window and set(counted) == {per_frame}
    else:
        assert len(counted) == frames + queue.steps - 1


def test_a_frame_ends_at_exactly_zero():
    """The last step gives the model's guess itself, not one with the lowest level's noise."""
    guesses = {}

    def denoise(view):
        clean = coupled(view)
        guesses.update(zip(view.times.tolist(), clean.clone(), strict=True))  # by number, also outside the clip
        return clean

    taken = {}
    sampler = Fifo(2, 4, False, 1.0)(job(6, 8, denoise=denoise))
    while True:
        try:
            step = next(sampler)
        except StopIteration as end:
            clip = end.value
            break
        if len(step.ids):
            taken[int(step.ids)] = guesses[int(step.ids)]
    for frame in range(6):
        assert torch.equal(clip[frame], taken[frame])


@pytest.mark.parametrize("lookahead", [False, True])
def test_a_longer_clip_begins_with_the_shorter_one(lookahead):
    short, _ = run(5, lookahead=lookahead, eta=1.0)
    long, _ = run(12, lookahead=lookahead, eta=1.0)
    assert torch.equal(long[:5], short)


def test_the_users_noise_is_what_frames_of_the_clip_start_from():
    own = frame_noise(SHAPE, SEED, range(6))
    assert torch.equal(run(6, noise=own)[0], run(6)[0])
    assert not torch.equal(run(6, noise=own + 1)[0], run(6)[0])


def test_frames_outside_the_clip_have_the_prompts_of_its_ends():
    seen = []

    def denoise(view):
        seen.extend(view.ids.tolist())
        return coupled(view)

    run(6, base=torch.zeros(4, *SHAPE), denoise=denoise, lookahead=True)
    assert set(seen) == set(range(6))


def test_what_is_kept_is_the_queue_and_no_more():
    """However long the clip: the generator holds frames in flight and half a window."""
    sampler = rollout(job(150, 8), Rollout(Queue(150, 2, 4, True), 4, 1.0, context_noise=ContextNoise(0.1)))
    sizes = set()
    for step in sampler:
        if len(step.ids) and int(step.ids) > 8:
            sizes.add((len(step.state.x), len(sampler.gi_frame.f_locals["stepper"].noises.kept) <= 16))
    assert sizes == {(8 + 2, True)}


# What theory says: an exact denoiser of a stationary Gaussian clip, covariances followed through the real code


RHO = 0.9


def moments(partitions, lookahead, outputs=24, passes=50):
    """Mean variance and mean lag-8 correlation of finished frames in the long run."""
    window = 16
    frames = passes + outputs
    queue = Queue(frames, partitions, window, lookahead)
    width = frames + queue.steps + 1
    angles = torch.arange(queue.steps + 1, dtype=torch.float64) * math.pi / 2 / queue.steps
    sigmas = angles.tan().clamp(0, 1e5)  # cosine levels
    place = torch.arange(window)
    prior = RHO ** (place[:, None] - place).abs().double()

    def denoise(view):  # a frame's x is a row: what it has of each frame's start noise
        known = torch.linalg.solve(prior + torch.diag(view.sigma**2), view.x)
        return prior @ known

    noise = torch.eye(width, dtype=torch.float64)  # frames behind the clip have some too
    steps = rollout(Job(denoise, torch.zeros_like(noise), sigmas, noise), Rollout(queue, window))
    made = torch.cat([step.finished for step in steps])
    covariance = (made @ made.T)[passes:, passes:]
    deviation = covariance.diag().sqrt()
    correlation = covariance / deviation[:, None] / deviation
    return covariance.diag().mean().item(), correlation.diagonal(8).mean().item()


PREDICTED = {  # (partitions, lookahead): variance, lag-8 correlation, with the exact denoiser inside each window
    (1, False): (0.836, 0.428),
    (1, True): (0.789, 0.409),
    (2, False): (0.855, 0.361),
    (2, True): (0.822, 0.374),
    (4, False): (0.833, 0.290),
    (4, True): (0.836, 0.332),
}


def test_partitions_and_lookahead_cost_and_give_what_is_predicted():
    """The truth is variance 1 and a lag-8 correlation of 0.43: partitions lose of the latter, lookahead brings some back."""
    found = {case: moments(*case) for case in PREDICTED}
    for case, values in PREDICTED.items():
        assert found[case] == pytest.approx(values, abs=0.01), case
    far = {case: lag for case, (_, lag) in found.items()}
    assert far[1, False] > far[2, False] > far[4, False]
    assert far[4, True] > far[4, False] and far[1, True] < far[1, False]


# What is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 20}, "sigmas have 20 steps and the queue 2 partitions of 4 frames: set steps of the scheduler to 8"),
        ({"known": torch.tensor([True, False, False])}, "mask leaves 1 frames alone and FIFO makes all of them"),
        ({"base": torch.zeros(3, *SHAPE)}, "base_clip is 3 frames of .* as many as the window, 4"),
        ({"base": torch.zeros(4, 2, 2)}, "base_clip is 4 frames of"),
        ({"base": torch.full((4, *SHAPE), math.nan)}, "not finite .* in frame 0"),
        ({"window": 5, "lookahead": True}, "window is 5 and lookahead moves half"),
        ({"window": 0, "steps": 8}, "this model does not say it: set window"),
        ({"partitions": 0}, "partitions is 0"),
        ({"eta": 1.5}, "eta is 1.5"),
    ],
)
def test_bad_input_is_one_sentence_before_the_first_call(change, sentence):
    def never(view):
        raise AssertionError("the model was called")

    with pytest.raises(ValueError, match=sentence) as error:
        run(3, denoise=never, **change)
    assert "\n" not in str(error.value)


def test_a_model_that_breaks_is_reported():
    with pytest.raises(ValueError, match="not finite"):
        run(3, denoise=lambda view: torch.full_like(view.x, math.nan))
