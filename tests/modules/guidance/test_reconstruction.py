"""Reconstruction and goal guidance: gradients against finite differences, on this pack's U-Net and on frozen models of ComfyUI's.

In the Gaussian world: ``test_gauss.py``.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pack import host
from pack.modules.guidance.branches import Branch
from pack.modules.guidance.goals import GOALS, GoalGuidance, named
from pack.modules.guidance.history import Composed, HistoryGuidance, compose
from pack.modules.guidance.reconstruction import NO_MODULES, PAST_ONLY, UNSEEN, Known, ReconstructionGuidance, Small
from pack.modules.guidance.steering import ALWAYS, Space, When, asked_by, fitted
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.model_view import View
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.vdm import VdmSampler
from pack.modules.temporal.chunks import Chunks, spatial_layers
from pack.modules.temporal.gradients import Gradients, checkpointed, normal
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import empty, fill, widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.nodes.guidance.reconstruction import LongTakeGoalGuidance, LongTakeReconstructionGuidance, frame_numbers
from pack.nodes.models.models import LongTakeLabelPrompt
from tiny import seeded, unet, video_model

KEPT = Gradients(gradient_checkpointing=False)  # as fast as such small models can be

FULL = TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", mask="full")


@pytest.fixture(autouse=True)
def same_numbers():
    """What tests draw is the same in every run."""
    with seeded(0):
        yield


def mixing(view):
    """Every frame is a little of all others; answers are not linear in them."""
    x = view.x.flatten(1)
    clean = torch.tanh(x + 0.3 * x.mean(dim=0, keepdim=True)) / (1 + view.sigma[:, None] ** 2)
    return clean.reshape(view.x.shape)


def a_view(sigma, coordinates="diffusion", frames=4, shape=(3, 4, 4), **changes):
    x = torch.randn(frames, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(frames).contiguous()
    return replace(View.plain(x, sigma), coordinates=coordinates, finished=sigma == 0, **changes)


def slope(number, x, direction, step=1e-6):
    """The derivative of ``number(x)`` along ``direction``, by central differences."""
    return float((number(x + step * direction) - number(x - step * direction)) / (2 * step))


# The formulas


@pytest.mark.parametrize(("coordinates", "factor"), [("diffusion", 1.0), ("flow", 1 - 0.6)])
def test_the_correction_is_the_paper_s(coordinates, factor):
    """At one level for all: ``weight / 2`` times the gradient of the sum of squares, times ``1 - sigma`` for flow models."""
    view, known = a_view(0.6, coordinates), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    guide = ReconstructionGuidance(3.0, Known((0, 2), known))
    corrected, plain = guide(mixing, view), mixing(view)
    assert torch.equal(corrected[[0, 2]], known), "known frames are what they are known to be"
    gradient = (plain - corrected)[[1, 3]] / (3.0 / 2 * factor)

    def error(x):
        return ((mixing(replace(view, x=x))[[0, 2]] - known) ** 2).sum()

    for seed in range(3):
        direction = torch.randn(view.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        direction[[0, 2]] = 0
        assert slope(error, view.x, direction) == pytest.approx(float((gradient * direction[[1, 3]]).sum()), rel=1e-6)


def test_frames_at_levels_of_their_own():
    """``sigma_b^2`` times the gradient of ``1 / (2 sigma_a^2)`` times the squares: Tweedie's formula for each frame."""
    view, known = a_view([0.5, 2.0, 1.0, 0.25]), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    corrected, plain = ReconstructionGuidance(1.0, Known((0, 3), known))(mixing, view), mixing(view)

    def error(x):
        squares = ((mixing(replace(view, x=x))[[0, 3]] - known) ** 2).sum(dim=(1, 2, 3))
        return (squares / torch.tensor([0.5, 0.25], dtype=torch.float64) ** 2).sum()

    direction = torch.zeros_like(view.x)
    direction[1] = torch.randn(3, 4, 4, dtype=torch.float64)
    moved = float(((plain - corrected)[1] * direction[1]).sum())
    assert moved == pytest.approx(2.0**2 / 2 * slope(error, view.x, direction), rel=1e-6)


def test_of_pure_noise_a_flow_model_has_nothing_to_compare():
    """At sigma 1 there is no trace of the clip, so the model is called once, without a gradient, and nothing is refused."""
    grads = []

    def denoise(view):
        grads.append(torch.is_grad_enabled() and view.x.requires_grad)
        return mixing(view)

    view, known = a_view(1.0, "flow"), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    guided = ReconstructionGuidance(known=Known((1,), known))(denoise, view)
    assert grads == [False] and torch.equal(guided[[0, 2, 3]], mixing(view)[[0, 2, 3]]) and torch.equal(guided[[1]], known)


@pytest.mark.parametrize("shrink", ["area", "bilinear"])
def test_latents_of_video_models_are_made_small_picture_by_picture(shrink):
    """``f b c h w``, as Wan's are given to guides."""
    clean = torch.randn(4, 1, 3, 4, 4, dtype=torch.float64)
    view = replace(a_view(0.6), ids=torch.arange(4))
    frames = torch.randn(4, 1, 3, 2, 2, dtype=torch.float64)
    small, wanted = Small(frames, shrink).of(view, clean)
    alone, _ = Small(frames[:, 0], shrink).of(view, clean[:, 0])
    assert small.shape == wanted.shape == frames.shape and torch.equal(small[:, 0], alone)


@pytest.mark.parametrize("shrink", ["area", "bilinear"])
def test_a_small_clip_guides_every_frame(shrink):
    view, small = a_view(0.6), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    corrected, plain = ReconstructionGuidance(2.0, small=Small(small, shrink))(mixing, view), mixing(view)

    def shrunk(clean):
        return F.avg_pool2d(clean, 2) if shrink == "area" else F.interpolate(clean, size=(2, 2), mode="bilinear", antialias=True)

    direction = torch.randn(view.x.shape, dtype=torch.float64)
    error = slope(lambda x: ((shrunk(mixing(replace(view, x=x))) - small) ** 2).sum(), view.x, direction)
    assert float(((plain - corrected) * direction).sum()) == pytest.approx(error, rel=1e-6)
    nearer = [float(((shrunk(clean) - small) ** 2).sum()) for clean in (corrected, plain)]
    assert nearer[0] < nearer[1]


def test_known_frames_and_a_small_clip_add_up():
    view, known, small = a_view(0.6), torch.randn(1, 3, 4, 4, dtype=torch.float64), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    plain = mixing(view)
    parts = [ReconstructionGuidance(2.0, known=Known((1,), known)), ReconstructionGuidance(2.0, small=Small(small))]
    both = ReconstructionGuidance(2.0, known=Known((1,), known), small=Small(small))
    rest = [0, 2, 3]
    torch.testing.assert_close((both(mixing, view) - plain)[rest], sum((part(mixing, view) - plain)[rest] for part in parts))


@pytest.mark.parametrize(("coordinates", "factor"), [("diffusion", 0.6**2), ("flow", 0.6**2 / (1 - 0.6))])
def test_a_goal_moves_the_guess_by_tweedie_s_formula(coordinates, factor):
    view = a_view(0.6, coordinates)
    corrected = GoalGuidance(lambda clean: -(clean**3).sum(), weight=0.5, latents=True)(mixing, view)
    direction = torch.randn(view.x.shape, dtype=torch.float64)
    wanted = 0.5 * factor * slope(lambda x: -(mixing(replace(view, x=x)) ** 3).sum(), view.x, direction)
    assert float(((corrected - mixing(view)) * direction).sum()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("goal", "target"), [("brightness", (0.8,)), ("colour", (0.9, 0.2, 0.4)), ("motion", (0.3,))])
def test_goals_lead_to_their_targets(goal, target):
    """Frames that follow the slope of a goal's score end where the goal is met."""
    score = named(goal, target)
    colours = torch.rand(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rate = 1.0 if goal == "motion" else 10.0
    for _ in range(300):
        (gradient,) = torch.autograd.grad(score(colours), colours)
        colours = (colours + rate * gradient).detach().requires_grad_()
    assert float(score(colours.detach())) == pytest.approx(0, abs=1e-4)
    if goal == "colour":
        torch.testing.assert_close(colours.mean(dim=(2, 3)), torch.tensor([target] * 5, dtype=torch.float64), rtol=0, atol=0.02)
    if goal == "motion":
        torch.testing.assert_close(
            (colours.diff(dim=0) ** 2).mean(dim=(1, 2, 3)).sqrt(), torch.full((4,), 0.3).double(), rtol=0, atol=0.02
        )


def test_every_goal_is_tested():
    assert set(GOALS) == {"brightness", "colour", "motion"}


# When and how much


def test_a_guide_acts_between_start_and_end_in_every_nth_call():
    space = Space(at_percent=lambda percent: 10 - 10 * percent)  # sigma 8 at 0.2, 2 at 0.8
    view = a_view([9.0, 8.0, 5.0, 2.0], call=3)
    assert When(0.2, 0.8).rows(view, space).tolist() == [False, True, True, False]
    assert ALWAYS.rows(
        replace(view, sigma=torch.tensor([9.0, 0.0, 1.0, 1.0]), finished=torch.tensor([False, True, False, True])), space
    ).tolist() == [True, False, True, False]
    acts = [bool(When(every=3).rows(replace(view, call=call), space).any()) for call in range(7)]
    assert acts == [True, False, False, True, False, False, True]


def test_outside_its_time_a_guide_costs_nothing():
    calls = []

    def denoise(view):
        calls.append(torch.is_grad_enabled() and view.x.requires_grad)
        return mixing(view)

    guide = ReconstructionGuidance(2.0, Known((0,), torch.zeros(1, 3, 4, 4).double()), when=When(every=2))
    for call in range(4):
        guide(denoise, a_view(0.6, call=call))
    assert calls == [True, False, True, False]


def test_a_clamped_correction_is_a_share_of_the_frame_and_the_log_says_so(caplog):
    view, known = a_view(0.6), 50 + torch.randn(1, 3, 4, 4, dtype=torch.float64)
    guide = ReconstructionGuidance(5.0, Known((0,), known), clamp=0.1)
    caplog.set_level("INFO", logger="longtake")
    corrected, plain = guide(mixing, view), mixing(view)
    size = (corrected - plain)[1:].flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(size, 0.1 * plain[1:].flatten(1).square().mean(dim=1).sqrt())
    guide(mixing, view)
    assert sum("was limited to 0.1" in record.message for record in caplog.records) == 1, "once per sampling"
    assert guide.notes.limited == 2
    assert torch.equal(replace(guide, clamp=0.0)(mixing, view)[1:], ReconstructionGuidance(5.0, guide.known)(mixing, view)[1:])


def test_history_guidance_inside_sees_the_sampler_s_own_history():
    """A guide hands on the view as it is: composed with history guidance, known frames guide what that makes of the call."""
    history = HistoryGuidance((Branch(1.5),))
    view = a_view([0.0, 0.6, 0.6, 0.6])
    guide = compose([ReconstructionGuidance(2.0, Known((3,), torch.zeros(1, 3, 4, 4).double())), history])
    assert isinstance(guide, Composed) and isinstance(guide.guides[-1], HistoryGuidance)
    direction = torch.zeros_like(view.x)
    direction[1:3] = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    error = slope(lambda x: (history(mixing, replace(view, x=x))[3] ** 2).sum(), view.x, direction)
    moved = history(mixing, view) - guide(mixing, view)
    assert float((moved * direction).sum()) == pytest.approx(error, rel=1e-5)


# Monte-Carlo guidance


def test_the_present_is_judged_by_several_futures():
    """Averaged over continuations the gradient of the present is that of the expected score; here both are known in closed form."""

    def denoise(view):
        return view.x * torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)[:, None, None, None]

    view = a_view([0.5, 1.0, 1.0], frames=3)
    guide = GoalGuidance(lambda clean: (clean[0] * clean[1] * clean[2]).sum(), latents=True, futures=300)
    moved = (guide(denoise, view) - denoise(view))[0] / 0.25
    guess = denoise(view)
    torch.testing.assert_close(moved, 0.25 * guess[1] * guess[2], rtol=0, atol=0.1)  # of x around the guess, halved by denoise
    again = guide(denoise, view)
    assert torch.equal(again, guide(denoise, view)), "the same seed"
    single = GoalGuidance(guide.score, latents=True)(denoise, view)
    assert torch.equal(again[1:], single[1:]) and not torch.allclose(again[0], single[0], atol=0.05)


def test_the_last_frames_of_a_take_have_no_futures():
    view = a_view([0.0, 0.5, 0.5], frames=3)
    calls = []
    guide = GoalGuidance(lambda clean: clean.sum(), latents=True, futures=5)
    guide(lambda view: (calls.append(1), mixing(view))[1], view)
    assert len(calls) == 1


def test_futures_need_a_sampler_with_a_level_per_frame():
    guide = GoalGuidance(lambda clean: clean.sum(), latents=True, futures=2)
    with pytest.raises(ValueError, match="shows all frames at one noise level"):
        fitted(guide, Space(levels=False))
    assert fitted(guide, Space()).guides[0].futures == 2


# What is refused, before any call


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ReconstructionGuidance(-1.0), "weight is -1"),
        (lambda: ReconstructionGuidance(float("nan")), "weight is nan"),
        (lambda: ReconstructionGuidance(1.0, clamp=-1.0), "clamp is -1"),
        (lambda: Small(torch.zeros(1, 3, 2, 2), "magic"), "choose one of area, bilinear"),
        (lambda: When(0.5, 0.5), "start_percent is 0.5 and end_percent 0.5"),
        (lambda: When(every=0), "every is 0"),
        (lambda: GoalGuidance(torch.sum, weight=float("inf")), "weight is inf"),
        (lambda: GoalGuidance(torch.sum, futures=0), "futures is 0"),
        (lambda: named("beauty", (1.0,)), "choose one of brightness, colour, motion"),
        (lambda: named("colour", (1.0,)), r"target of colour is \[1.0\]: it takes 3 numbers"),
        (lambda: named("brightness", (1.5,)), r"target of brightness is \[1.5\]"),
    ],
)
def test_bad_settings(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("guide", "space", "sentence"),
    [
        (ReconstructionGuidance(known=Known((0, 1), torch.zeros(1, 3, 4, 4))), Space(), "2 frame numbers were given for 1 known"),
        (ReconstructionGuidance(known=Known((5,), torch.zeros(1, 3, 4, 4))), Space(frames=4), "frame 5 is known and the clip has"),
        (ReconstructionGuidance(known=Known((0, -4), torch.zeros(2, 3, 4, 4))), Space(frames=4), "stands there once"),
        (ReconstructionGuidance(known=Known((0,), torch.zeros(1, 3, 4, 4))), Space(mixing="none"), NO_MODULES),
        (ReconstructionGuidance(known=Known((0,), torch.zeros(1, 3, 4, 4))), Space(mixing="past", frames=4), PAST_ONLY),
        (GoalGuidance(torch.sum), Space(), "no quick way from this model's latents"),
    ],
)  # fmt: skip
def test_guides_that_cannot_work_on_a_model(guide, space, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(guide, space)


def test_a_causal_model_may_be_guided_by_later_frames():
    guide = ReconstructionGuidance(known=Known((-1,), torch.zeros(1, 3, 4, 4)))
    assert fitted(guide, Space(mixing="past", frames=4)).guides[0].known.ids == (3,)
    fitted(ReconstructionGuidance(0.0, Known((0,), torch.zeros(1, 3, 4, 4))), Space(mixing="none", frames=4))
    fitted(ReconstructionGuidance(small=Small(torch.zeros(4, 3, 2, 2))), Space(mixing="none", frames=4))


def test_a_model_whose_frames_do_not_hang_on_each_other_is_found_out():
    def apart(view):
        return view.x / (1 + view.sigma[:, None, None, None] ** 2)

    guide = ReconstructionGuidance(known=Known((0,), torch.zeros(1, 3, 4, 4).double()))
    with pytest.raises(ValueError, match=UNSEEN):
        guide(apart, a_view(0.6))
    guide(mixing, a_view(0.6))
    guide(apart, a_view(0.6))  # a module that rests later in a sampling is no reason to stop


@pytest.mark.parametrize(
    ("small", "sentence"),
    [
        (torch.zeros(3, 3, 2, 2), "the small clip has 3 frames and frame 3 is sampled"),
        (torch.zeros(4, 2, 2, 2), "must be a smaller latent of the same kind"),
        (torch.zeros(4, 3, 8, 2), "must be a smaller latent of the same kind"),
    ],
)
def test_small_clips_that_do_not_fit(small, sentence):
    with pytest.raises(ValueError, match=sentence):
        ReconstructionGuidance(small=Small(small.double()))(lambda view: pytest.fail("the model was called"), a_view(0.6))


def test_what_guides_ask_for_together():
    one, other = (
        ReconstructionGuidance(gradients=Gradients("positive", False)),
        GoalGuidance(torch.sum, gradients=Gradients("both", True)),
    )
    assert asked_by(Composed((one, other))) == Gradients("both", True, True)
    assert asked_by(one) == Gradients("positive", False, True)
    assert asked_by(lambda denoise, view: None) is None
    assert asked_by(ReconstructionGuidance(small=Small(torch.zeros(4, 3, 2, 2)))) == Gradients()


# Through networks


def network(**temporal):
    """This pack's U-Net with motion modules, in double precision."""
    made = unet(num_heads=2).double()
    motion = MotionModel(widths(made), replace(FULL, **temporal))
    with torch.no_grad():
        for number, parameter in enumerate(motion.parameters()):
            draw = torch.Generator().manual_seed(number)
            parameter.copy_(
                torch.randn(parameter.shape, generator=draw)
                * (0.3 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
            )
    return made, motion.double().eval().requires_grad_(False)


def denoiser(made, motion, recompute):
    """A call of the network as hosts make it: what it is told for the call is over when gradients come back."""
    chunks, layers = Chunks(), spatial_layers(made)
    chunks.gradient_checkpointing = recompute
    fill(made, motion.slot_functions(), chunks.around, layers)

    def denoise(view):
        opened = checkpointed(made, [motion], [chunks, motion], layers) if recompute else nullcontext()
        with motion.during(motion.frames_for(view.ids)), opened:
            return made(view.x / (1 + view.sigma[:, None, None, None] ** 2).sqrt(), 100 * view.sigma)

    return denoise


@pytest.mark.parametrize("attentions", [1, 2])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_through_this_pack_s_network(recompute, attentions):
    made, motion = network(attentions=attentions)
    denoise = denoiser(made, motion, recompute)
    view, known = a_view(0.6, shape=(4, 4, 4), frames=5), torch.randn(2, 4, 4, 4, dtype=torch.float64)
    before = {layer: layer.forward for layer in made.modules()}
    moved = denoise(view).detach() - ReconstructionGuidance(2.0, Known((0, 1), known))(denoise, view)
    assert all(layer.forward == forward for layer, forward in before.items()), "nothing is left on the network"
    for seed in range(2):
        direction = torch.randn(view.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        direction[:2] = 0
        with torch.no_grad():
            error = slope(lambda x: ((denoise(replace(view, x=x))[:2] - known) ** 2).sum(), view.x, direction)
        assert float((moved * direction).sum()) == pytest.approx(error, rel=1e-4)
    empty(made)


def test_layers_that_compute_again_keep_little():
    """What autograd keeps between forward and backward, counted: inputs of layers instead of all that is inside."""
    kept = {}
    for recompute in (False, True):
        made, motion = network(attentions=2)
        denoise, sizes = denoiser(made, motion, recompute), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.update({t.untyped_storage()._cdata: t.untyped_storage().nbytes()}), t)[1], lambda t: t
        ):
            view = a_view(0.6, shape=(4, 8, 8), frames=8)
            x = view.x.requires_grad_()
            number = denoise(replace(view, x=x)).square().sum()
        weights = {p.untyped_storage()._cdata for p in [*made.parameters(), *motion.parameters()]}
        kept[recompute] = sum(size for place, size in sizes.items() if place not in weights)
        torch.autograd.grad(number, x)
        empty(made)
    assert kept[True] < kept[False] / 5


def test_tensors_leave_inference_mode():
    with torch.inference_mode():
        held = {"a": [torch.zeros(2), 3], "b": View.plain(torch.zeros(2, 1), torch.zeros(2))}
    out = normal(held)
    assert not out["a"][0].is_inference() and not out["b"].x.is_inference() and out["a"][1] == 3
    assert held["a"][0].is_inference()


# On hosts


@pytest.fixture
def model():
    return host.video_model(video_model(temporal=FULL))


class Whole:
    """An algorithm that samples a clip whose first frames are known."""

    uniform = True

    def __init__(self, known, **settings):
        self.known, self.settings = known, settings

    def __call__(self, job: Job):
        return VdmSampler(**self.settings)(replace(job, known=torch.arange(len(job.latent)) < self.known))


def sampled(model, guide, *, cfg=2.0, known=2, latent=None, algorithm=None, steps=2, prompt="red square"):
    """A clip of this host's, in inference mode as ComfyUI runs its nodes."""
    latent = (
        torch.cat([torch.randn(2, 48, 4, 4, generator=torch.Generator().manual_seed(5)), torch.zeros(4, 48, 4, 4)])
        if latent is None
        else latent
    )
    positive, negative = (LongTakeLabelPrompt.execute(model=model, prompt=words).args[0] for words in (prompt, ""))
    with torch.inference_mode():
        return host.sample(
            model,
            positive,
            negative,
            cfg=cfg,
            latent=latent,
            algorithm=algorithm or Whole(known),
            seed=1,
            sigmas=host.level_sigmas(model, steps),
            guide=guide,
        )


def guidance(known=2, **changes):
    latent = torch.randn(2, 48, 4, 4, generator=torch.Generator().manual_seed(5))
    return ReconstructionGuidance(**({"weight": 2.0, "known": Known(tuple(range(known)), latent), "gradients": KEPT} | changes))


def weights_of(model):
    networks = [host.unet_of(model), *host.motion_models(model)]
    return {(place, key): value.clone() for place, net in enumerate(networks) for key, value in net.state_dict().items()}


def traces(model):
    """What instances of the networks' layers carry beside what they were made with."""
    networks = [host.unet_of(model), *host.motion_models(model)]
    return {
        (place, name): set(vars(layer)) - {"prev_comfy_cast_weights"}
        for place, net in enumerate(networks)
        for name, layer in net.named_modules()
    }


def test_guidance_on_this_host_leaves_no_trace(model):
    sampled(model, None or guidance(weight=0.0))  # loads it
    weights, before = weights_of(model), traces(model)
    guided, plain = sampled(model, guidance()), sampled(model, guidance(weight=0.0))
    assert not torch.allclose(guided[2:], plain[2:], atol=1e-3)
    assert torch.equal(guided[:2], plain[:2])
    assert traces(model) == before
    assert all(torch.equal(value, weights[key]) for key, value in weights_of(model).items())
    assert torch.equal(sampled(model, guidance(weight=0.0)), plain)


def test_computing_again_changes_nothing(model):
    kept = sampled(model, guidance())
    weights, before = weights_of(model), traces(model)
    torch.testing.assert_close(sampled(model, guidance(gradients=Gradients())), kept, rtol=1e-4, atol=1e-4)
    assert traces(model) == before
    assert all(torch.equal(value, weights[key]) for key, value in weights_of(model).items())


def test_the_positive_branch_alone(model):
    """The guess is the full one, its slope that of the positive condition; at cfg 1 there is no other."""
    both, one = (sampled(model, guidance(gradients=Gradients(wish, False))) for wish in ("both", "positive"))
    assert not torch.allclose(both, one, atol=1e-4)
    both, one = (sampled(model, guidance(gradients=Gradients(wish, False)), cfg=1.0) for wish in ("both", "positive"))
    torch.testing.assert_close(both, one, rtol=1e-4, atol=1e-4)
    hardly = sampled(model, guidance(weight=1e-6, gradients=Gradients("positive", False)))
    torch.testing.assert_close(hardly, sampled(model, guidance(weight=0.0)), rtol=1e-4, atol=1e-4)


def test_a_goal_is_approached(model):
    bright = [
        float(sampled(model, GoalGuidance(named("brightness", (target,)), 300.0, gradients=KEPT), known=0, cfg=1.0).mean())
        for target in (0.1, 0.9)
    ]
    assert bright[0] < bright[1] - 0.05


def test_a_cancelled_or_failed_sampling_leaves_no_trace(model):
    sampled(model, guidance(weight=0.0))
    weights, before = weights_of(model), traces(model)

    def fails(clean):
        raise RuntimeError("the score failed")

    with pytest.raises(RuntimeError, match="the score failed"):
        sampled(model, GoalGuidance(fails, latents=True))

    class Stops(Whole):
        def __call__(self, job):
            steps = super().__call__(job)
            yield next(steps)
            raise host.Interrupted()

    with pytest.raises(host.Interrupted):
        sampled(model, guidance(), algorithm=Stops(2))
    assert traces(model) == before
    assert all(torch.equal(value, weights[key]) for key, value in weights_of(model).items())


def test_a_model_that_sees_the_past_only_is_refused_before_it_is_called(monkeypatch):
    causal = host.video_model(video_model())
    monkeypatch.setattr(type(host.unet_of(causal)), "forward", lambda *args, **kwargs: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match=PAST_ONLY):
        sampled(causal, guidance())


def test_futures_are_refused_where_all_frames_have_one_level(model):
    guide = GoalGuidance(lambda clean: clean.mean(), latents=True, futures=2, gradients=KEPT)
    together, lagging = (Forcing(NoiseLevels.named(name, 6, 2), 6) for name in ("full_sequence", "pyramid"))
    for algorithm in (Whole(0), together):
        with pytest.raises(ValueError, match="shows all frames at one noise level"):
            sampled(model, guide, algorithm=algorithm, latent=torch.zeros(6, 48, 4, 4))
    assert torch.isfinite(sampled(model, guide, algorithm=lagging, latent=torch.zeros(6, 48, 4, 4))).all()


# Nodes


def test_which_frames_are_known():
    assert frame_numbers("first", 3) == (0, 1, 2) and frame_numbers("", 2) == (0, 1)
    assert frame_numbers("last", 3) == (-3, -2, -1)
    assert frame_numbers("0, 8..10 -1", 5) == (0, 8, 9, 10, -1)
    with pytest.raises(ValueError, match="'third' is no frame"):
        frame_numbers("0, third", 2)


def test_nodes_make_guidance_and_compose_it():
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    options = {"known_at": "last", "branch": "positive", "gradient_checkpointing": False}
    one = LongTakeReconstructionGuidance.execute(known_frames=latent, **options).args[0]
    assert one.known.ids == (-2, -1) and one.gradients == Gradients("positive", False, True)
    both = LongTakeGoalGuidance.execute(goal="colour", red=1.0, before=one, every=2, futures=3).args[0]
    assert both.guides[1] == one and both.guides[0].when == When(every=2) and both.guides[0].futures == 3
    with pytest.raises(ValueError, match="connect known_frames, small_clip or both"):
        LongTakeReconstructionGuidance.execute()
    video = LongTakeReconstructionGuidance.execute(known_frames={"samples": torch.zeros(1, 16, 3, 8, 8)}).args[0]
    assert video.known.ids == (0, 1, 2)
    small = LongTakeReconstructionGuidance.execute(small_clip=latent, shrink="bilinear").args[0]
    assert small.known is None and small.small.shrink == "bilinear" and not small.gradients.across
