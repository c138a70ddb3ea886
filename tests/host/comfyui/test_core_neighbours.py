"""ComfyUI's samplings, areas, masks and hooks x the ways of showing a clip: the plain result, or a refusal in one sentence.

Without a motion module windows change nothing. With one whose frames see nothing of each other they change nothing either; and windows
that hold the whole clip never do, whatever frames see.
"""

from dataclasses import replace
from functools import cache

import pytest
from attached_models import FRAMES, LATENT, SIZE, animated
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack import host
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from tiny_motion import image_model, text
from whole_windows import close, drawn

pytestmark = pytest.mark.comfy
STEPS = 8  # FIFO wants as many steps as frames in its queue


def discrete(kind, zsnr=False):
    def put(model, conds):
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

        return ModelSamplingDiscrete().patch(model, kind, zsnr)[0], conds

    return put


def continuous(kind):
    def put(model, conds):
        from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

        return ModelSamplingContinuousEDM().patch(model, kind, 120.0, 0.002)[0], conds

    return put


def flow(model, conds):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, 3.0)[0], conds


def area(model, conds):
    """Two halves of one size, and something for the whole."""
    left, right, both = (text(seed)[0] for seed in (3, 5, 6))
    left = [left[0], {"area": (SIZE, SIZE // 2, 0, 0), "strength": 1.0}]
    right = [right[0], {"area": (SIZE, SIZE // 2, 0, SIZE // 2), "strength": 0.7}]
    return model, {**conds, "positive": [left, right, both]}


def masks(model, conds):
    """A mask per frame, beside an area."""
    mask = (drawn(FRAMES, SIZE, SIZE, seed=8) > 0).float()
    left = [text(3)[0][0], {"area": (SIZE, SIZE // 2, 0, 0), "strength": 1.0, "mask": mask, "mask_strength": 1.0}]
    return model, {**conds, "positive": [left, text(5)[0]]}


def hooks(model, conds):
    """A LoRA that one of two prompts has."""
    import comfy.hooks

    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
    weight = model.model.state_dict()[key]
    group, hook = comfy.hooks.HookGroup(), comfy.hooks.WeightHook(strength_model=1.0)
    hook.weights, hook.need_weight_init = {key: ("diff", (drawn(*weight.shape, seed=9) * 0.5,))}, False
    group.add(hook)
    return model, {**conds, "positive": [*comfy.hooks.set_hooks_for_conditioning(text(3), group), text(5)[0]]}


def percents(model, conds):
    """A prompt for the beginning and one for the rest."""
    parts = [
        [text(3)[0][0], {"start_percent": 0.0, "end_percent": 0.4}],
        [text(5)[0][0], {"start_percent": 0.4, "end_percent": 1.0}],
    ]
    return model, {**conds, "positive": parts}


NEIGHBOURS = {
    "eps": discrete("eps"),
    "v prediction": discrete("v_prediction"),
    "zero terminal SNR": discrete("v_prediction", zsnr=True),
    "LCM": discrete("lcm"),
    "x0": discrete("x0"),
    "continuous EDM": continuous("edm_playground_v2.5"),
    "continuous v": continuous("v_prediction"),
    "flow": flow,
    "area": area,
    "masks": masks,
    "hooks": hooks,
    "percents": percents,
}
CONDS = {"positive": text(3), "negative": text(4), "cfg": 2.0}


def sampled(case, sampler=None):
    model, conds = case
    return advanced(model, sampler or theirs("euler"), LATENT, scheduler_sigmas(model, STEPS), **conds)


def windowed(mode, length=4):
    def way(case, monkeypatch):
        model, conds = case
        return sampled((host.context_windows(model, WindowPlan(length=length, overlap=2), mode), conds))

    return way


def chunked(case, monkeypatch):
    from pack.host.comfyui.attach import motion_call

    planned = motion_call.plan_for
    monkeypatch.setattr(motion_call, "plan_for", lambda *args, **kwargs: replace(planned(*args, **kwargs), chunk=2))
    return sampled(case)


def by(make):
    return lambda case, monkeypatch: sampled(case, make())


WAYS = {
    "windows": windowed("whole"),
    "motion windows": windowed("temporal"),
    "chunks": chunked,
    "full sequence": by(lambda: forcing("full_sequence", FRAMES, STEPS)),
    "pyramid": by(lambda: forcing("pyramid", FRAMES, STEPS, lag=2.0)),
    "rolling": by(lambda: forcing("autoregressive", FRAMES, STEPS, block=2, window=4)),
    "FIFO": by(lambda: LongTakeFifoSampler.execute(partitions=2, window=4, eta=0.0).args[0]),
}
# (neighbour, way) -> what is said where it cannot be
REFUSED: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def alone(comfyui, tmp_path_factory):
    """A model with motion none of whose frames sees another."""
    return animated(tmp_path_factory.mktemp("alone"))


@cache
def plain(name, model):
    return sampled(NEIGHBOURS[name](model, CONDS))


def rows():
    for name in NEIGHBOURS:
        for way in WAYS:
            quick = way in ("windows", "rolling") or (name, way) in REFUSED
            yield pytest.param(name, way, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "way"), list(rows()))
def test_frames_that_see_nothing_of_each_other_are_the_same_in_every_way(name, way, alone, monkeypatch):
    case = NEIGHBOURS[name](alone, CONDS)
    if (name, way) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, way]):
            WAYS[way](case, monkeypatch)
        return
    close(WAYS[way](case, monkeypatch), plain(name, alone), 1e-4)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_without_motion_windows_change_nothing(name, comfyui):
    case = NEIGHBOURS[name](image_model(), CONDS)
    close(windowed("whole")(case, None), sampled(case), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "temporal"])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_windows_that_hold_the_clip_change_nothing_with_motion(name, mode, tmp_path):
    case = NEIGHBOURS[name](animated(tmp_path, settings=MotionSettings()), CONDS)
    close(windowed(mode, FRAMES)(case, None), sampled(case), 1e-4)
