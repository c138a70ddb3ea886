"""Any of ComfyUI's ControlNets over windows, and as strong in each frame as keyframes say."""

import pytest
import torch
from pack.modules.control.keyframes import Keyframes
from pack.nodes.keyframes.keyed_control import LongTakeKeyframedControlNet
from sparing import sparing
from tiny_motion import image_model, text
from whole_windows import (
    CONTROLS,
    FRAMES,
    PLAN,
    close,
    control_net,
    controlled,
    core_handler,
    drawn,
    guess,
    hints,
    run,
    whole,
)

pytestmark = pytest.mark.comfy
WEIGHTS = [0.5, 0.25, 0.0, 0.0, 0.5, 1.0, 0.5]  # of ``keyed`` below, by hand


@pytest.fixture(scope="module")
def model(comfyui):
    return image_model()


def keyed(**changes):
    values = {"images": hints(2, seed=9).movedim(1, -1), "frames": (0, 5), "strengths": (0.5, 1.0), "reach": (1, 1)}
    return Keyframes(**(values | changes))


def applied(kind="ControlNet", keyframes=None, shown=None, conds=(), **settings):
    """Both conditionings, through the node."""
    settings = {"clip_frames": FRAMES, "strength": 0.8, **settings}
    positive, negative = conds or (text(3), text(4))
    return LongTakeKeyframedControlNet.execute(
        positive=positive,
        negative=negative,
        control_net=CONTROLS[kind](),
        keyframes=keyframes or keyed(),
        hints=shown,
        **settings,
    ).result


X = drawn(FRAMES, 4, 8, 8) * 5


def guessed(model, conds, sigma=None, x=X):
    return guess(model, x, torch.tensor(5.0) if sigma is None else sigma, *conds)


def test_hints_follow_windows_where_comfyuis_own_do_not(model):
    """Without motion a frame is the same in any window, if it has its own hint."""
    import comfy.context_windows as core

    if not hasattr(core, "create_sampler_sample_wrapper"):
        pytest.skip("this ComfyUI's windows crash for frames in the batch axis")
    theirs = model.clone()
    theirs.model_options["context_handler"] = core_handler(
        schedule="batched", fuse="flat", context_length=4, context_overlap=0, context_stride=1, dim=0
    )

    def sampled(which):
        positive, negative = controlled(control_net().set_cond_hint(hints(), 1.0))
        return run(which, positive=positive, negative=negative, steps=2)

    plain = sampled(model)

    def error(other):
        return (other - plain).flatten(1).abs().amax(dim=1) / plain.abs().max()

    assert error(sampled(whole(model))).max() < 2e-5
    wrong = error(sampled(theirs))
    assert wrong[:4].max() < 2e-5 and wrong[4:].min() > 1e-3, "ComfyUI's own windows show the first four hints in each"


@pytest.mark.parametrize("kind", sparing(CONTROLS, "ControlNet"))
def test_each_frame_is_controlled_as_strongly_as_its_keyframes_say(model, kind):
    """A frame alone, with the same hint at a fixed strength, is what each must be."""
    made = guessed(model, applied(kind))
    pictures = keyed().images.movedim(-1, 1)
    for frame, weight in enumerate(WEIGHTS):
        hint = pictures[[1 if frame > 2 else 0]]
        conds = controlled(CONTROLS[kind]().set_cond_hint(hint, 0.8 * weight)) if weight else (text(3), text(4))
        close(made[frame], guess(model, X[[frame]], torch.tensor(5.0), *conds)[0], 2e-5)


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("own_hints", sparing([False, True], True))
def test_windows_change_nothing(model, kind, own_hints):
    shown = hints().movedim(1, -1) if own_hints else None
    windowed, plain = (guessed(sampled, applied(kind, shown=shown)) for sampled in (whole(model, PLAN), model))
    close(windowed, plain)
    assert (plain - guessed(model, applied(kind, shown=shown, strength=0.0))).abs().max() > 1e-3


@pytest.mark.parametrize("anchored", [False, True])
def test_comfyuis_own_windows_change_nothing_either(model, anchored):
    """Newer versions show a frame before each window besides, which is dropped again."""
    import comfy.context_windows as core

    if not hasattr(core, "create_sampler_sample_wrapper"):
        pytest.skip("this ComfyUI's windows crash for frames in the batch axis")
    theirs, settings = model.clone(), {"context_length": 4, "context_overlap": 2, "context_stride": 1, "dim": 0}
    theirs.model_options["context_handler"] = handler = core_handler(schedule="standard_static", fuse="flat", **settings)
    handler.causal_window_fix = anchored
    made = []
    for sampled in (theirs, model):
        positive, negative = applied()
        made.append(run(sampled, positive=positive, negative=negative, steps=2))
    close(*made)


def test_hints_of_ones_own_are_shown_frame_by_frame(model):
    everywhere = Keyframes(torch.rand(1, 64, 64, 3), (3,), (1.0,), (10_000_000,))
    made = guessed(model, applied(keyframes=everywhere, shown=hints().movedim(1, -1)))
    close(made, guessed(model, controlled(control_net().set_cond_hint(hints(), 0.8))), 2e-5)


def test_each_frame_starts_and_ends_at_its_own_level(model):
    limit = float(model.get_model_object("model_sampling").percent_to_sigma(0.4))
    sigma = torch.tensor([limit * factor for factor in (0.3, 0.5, 2.0, 0.8, 3.0, 1.5, 0.9)])
    on, off = guessed(model, applied(), sigma), guessed(model, (text(3), text(4)), sigma)
    close(guessed(model, applied(end_percent=0.4), sigma), torch.where((sigma >= limit).view(-1, 1, 1, 1), on, off))


def test_a_control_before_it_goes_on_and_comfyui_is_told_of_both(model):
    before = controlled(control_net(6).set_cond_hint(hints(), 0.7))
    positive, negative = applied(conds=before)
    control = positive[0][1]["control"]
    assert negative[0][1]["control"] is control and control.previous_controlnet is before[0][0][1]["control"]
    assert len(control.get_models()) == 2 and control.inference_memory_requirements(torch.float32) == 0
    made = guessed(model, (positive, negative))
    for other in (applied(), before):
        assert (made - guessed(model, other)).abs().max() > 1e-3
    close(made[2:4], guessed(model, before)[2:4], 2e-5)  # frames that no keyframe reaches


def test_copies_give_the_same(model):
    conds = applied()
    expected = guessed(model, conds)
    control = conds[0][0][1]["control"]
    copies = [control.copy()]
    if hasattr(control.control, "deepclone_multigpu"):
        copies.append(control.deepclone_multigpu(torch.device("cpu")))
    for made in copies:
        replaced = tuple([[tokens, {**values, "control": made}] for tokens, values in some] for some in conds)
        close(guessed(model, replaced), expected, 1e-6)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda m: applied(shown=torch.zeros(3, 64, 64, 3)), "3 hints were given for a clip of 7 frames"),
        (lambda m: applied(keyframes=keyed(frames=(0, 7))), "at frame 7 and the clip has 7 frames"),
        (lambda m: applied(clip_frames=0), "the clip's length is not known: set clip_frames"),
        (lambda m: applied(start_percent=0.5, end_percent=0.2), "start_percent is 0.5 and end_percent 0.2"),
        (lambda m: guessed(m, applied(clip_frames=8)), "the clip has 7 frames and its keyframes were laid out for 8"),
        (
            lambda m: LongTakeKeyframedControlNet.execute(
                positive=text(), negative=text(), control_net=3, keyframes=keyed(), clip_frames=FRAMES
            ),
            "int was given for a ControlNet: connect Load ControlNet Model",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, sentence, model):
    with pytest.raises(ValueError, match=sentence) as caught:
        make(model)
    assert "\n" not in str(caught.value)
