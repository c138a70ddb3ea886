"""ComfyUI's own model patches x the ways of showing a clip: the plain result, or a refusal in one sentence before the model is called.

The frames of the clip see nothing of each other, so a frame is the same whichever way it is shown, unless a patch looks beyond it.
"""

import importlib
import logging
from functools import cache, wraps
from inspect import unwrap

import pytest
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.guidance.extension import Extension
from pack.modules.sampling.vdm import VdmSampler
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from tiny_motion import image_model, motion_file, text
from tiny_wan import text as wan_text
from tiny_wan import wan_model
from whole_windows import close

pytestmark = pytest.mark.comfy
FRAMES, SIZE, STEPS = 6, 8, 8  # FIFO wants as many steps as frames in its queue
LATENT = torch.zeros(FRAMES, 4, SIZE, SIZE)
PLAN = WindowPlan(length=4, overlap=2)
CONDS = {"positive": text(3), "negative": text(4), "cfg": 3.0}


def extra(file, node):
    import nodes  # noqa: F401  ComfyUI's own, before its extras
    from comfy_extras import nodes_post_processing  # noqa: F401  which some of them import in a circle

    module = pytest.importorskip(f"comfy_extras.{file}", reason=f"this ComfyUI has no {file}")
    if not hasattr(module, node):
        pytest.skip(f"this ComfyUI has no {node}")
    return getattr(module, node)


def ran(node, *args):
    """What a node of ComfyUI's gives first, whichever way it is written."""
    made = node.execute(*args) if hasattr(node, "execute") else node().patch(*args)
    return getattr(made, "args", made)[0]


def patched(file, node, *values):
    return lambda model: (ran(extra(file, node), model, *values), None)


def merged_tokens(model):
    """Its choice of tokens is random, at every call anew; here it is always the same."""
    module = importlib.import_module("comfy_extras.nodes_tomesd")
    matching = unwrap(module.bipartite_soft_matching_random2d)
    module.bipartite_soft_matching_random2d = wraps(matching)(lambda *given: matching(*given[:-1], True))
    return ran(module.TomePatchModel, model, 0.4), None


def tonemapped(model):
    operation = ran(extra("nodes_latent", "LatentOperationTonemapReinhard"), 0.5)
    return ran(extra("nodes_latent", "LatentApplyOperationCFG"), model, operation), None


def perp_neg_guider(model):
    made = ran(extra("nodes_perpneg", "PerpNegGuider"), model, text(3), text(4), text(5), 3.0, 1.0)
    return model, made


def old_perp_neg(model):
    return ran(extra("nodes_perpneg", "PerpNeg"), model, text(5), 1.0), None


DOWNSCALED = (1, 2.0, 0.0), (True, "bilinear", "bilinear")
ONE_LEVEL = dict.fromkeys(("pyramid", "rolling", "FIFO"), "takes the first frame's noise level for that of all")
GOES_ON = dict.fromkeys(("pyramid", "rolling", "FIFO"), "goes on from what the model gave in the call before")
TOGETHER = dict.fromkeys(("pyramid", "rolling", "FIFO"), "measures all frames of a call together")
BY_PLACE = dict.fromkeys(("pyramid", "rolling", "FIFO"), "goes by a frame's place in the call")
# patch -> (how it is put on a MODEL, what is said where it cannot be: way -> words)
PATCHES = {
    "APG": (patched("nodes_apg", "APG", 0.5, 2.0, 0.0), {}),
    "APG with momentum": (patched("nodes_apg", "APG", 0.5, 2.0, -0.5), GOES_ON),
    "CFGNorm": (patched("nodes_cfg", "CFGNorm", 0.9), {}),
    "CFGZeroStar": (patched("nodes_cfg", "CFGZeroStar"), {}),
    "CFG Override": (patched("nodes_custom_sampler", "CFGOverride", 1.5, 0.0, 1.0), {}),
    "CFG Override at the beginning": (patched("nodes_custom_sampler", "CFGOverride", 1.5, 0.0, 0.5), ONE_LEVEL),
    "EasyCache": (patched("nodes_easycache", "EasyCacheNode", 3.0, 0.0, 1.0, False), GOES_ON),
    "EpsilonScaling": (patched("nodes_eps", "EpsilonScaling", 1.05), {}),
    "FreSca": (patched("nodes_fresca", "FreSca", 0.8, 1.5, 2), {}),
    "FreeU": (patched("nodes_freelunch", "FreeU", 1.1, 1.4, 0.9, 0.2), {}),
    "FreeU_V2": (patched("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2), {}),
    "HyperTile": (patched("nodes_hypertile", "HyperTile", 32, 2, 0, False), {}),
    "LatentApplyOperationCFG": (tonemapped, {}),
    "LazyCache": (patched("nodes_easycache", "LazyCacheNode", 3.0, 0.0, 1.0, False), GOES_ON),
    "Mahiro": (patched("nodes_mahiro", "Mahiro"), TOGETHER),
    "NAG": (patched("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5), {}),
    "PAG": (patched("nodes_pag", "PerturbedAttentionGuidance", 3.0), {}),
    "PatchModelAddDownscale": (
        patched("nodes_model_downscale", "PatchModelAddDownscale", *DOWNSCALED[0], 0.5, *DOWNSCALED[1]),
        ONE_LEVEL,
    ),
    "PatchModelAddDownscale all along": (
        patched("nodes_model_downscale", "PatchModelAddDownscale", *DOWNSCALED[0], 1.0, *DOWNSCALED[1]),
        {},
    ),
    "PerpNeg": (old_perp_neg, TOGETHER),
    "PerpNegGuider": (perp_neg_guider, TOGETHER),
    "RescaleCFG": (patched("nodes_model_advanced", "RescaleCFG", 0.7), {}),
    "SAG": (patched("nodes_sag", "SelfAttentionGuidance", 0.8, 2.0), {"windows": "keeps what the last call of the network gave"}),
    "TCFG": (patched("nodes_tcfg", "TCFG"), {}),
    "Tome": (merged_tokens, {}),
    "VideoLinearCFG": (patched("nodes_video_model", "VideoLinearCFGGuidance", 1.0), BY_PLACE),
    "VideoTriangleCFG": (patched("nodes_video_model", "VideoTriangleCFGGuidance", 1.0), BY_PLACE),
}


@pytest.fixture(scope="module")
def model(comfyui, tmp_path_factory):
    """A model with a motion module none of whose frames sees another."""
    from dataclasses import replace

    module = load_motion_module(motion_file(tmp_path_factory.mktemp("motion")))
    module = replace(module, config=replace(module.config, positions="rotary"))
    return host.apply_motion(image_model(), module, MotionSettings(attention_window=1), "model")


def sampled(given, sampler=None):
    model, guider = given
    return advanced(model, sampler or theirs("euler"), LATENT, scheduler_sigmas(model, STEPS), guider=guider, **CONDS)


@cache
def plain(name, model):
    made = sampled(PATCHES[name][0](model))
    without = sampled((model, None))
    assert (made - without).abs().amax((1, 2, 3)).median() > 1e-3 * without.abs().max(), "it changes most frames"
    return made


def windowed(mode):
    return lambda put, model, monkeypatch: sampled(put(host.context_windows(model, PLAN, mode)))


def chunked(put, model, monkeypatch):
    from dataclasses import replace

    from pack.host.comfyui.attach import motion_call

    planned = motion_call.plan_for
    monkeypatch.setattr(motion_call, "plan_for", lambda *args, **kwargs: replace(planned(*args, **kwargs), chunk=2))
    return sampled(put(model))


def by(sampler):
    return lambda put, model, monkeypatch: sampled(put(model), sampler())


WAYS = {
    "windows": windowed("whole"),
    "motion windows": windowed("temporal"),
    "chunks": chunked,
    "full sequence": by(lambda: forcing("full_sequence", FRAMES, STEPS)),
    "pyramid": by(lambda: forcing("pyramid", FRAMES, STEPS, lag=2.0)),
    "rolling": by(lambda: forcing("autoregressive", FRAMES, STEPS, block=2, window=4)),
    "FIFO": by(lambda: LongTakeFifoSampler.execute(partitions=2, window=4, eta=0.0).args[0]),
}


@pytest.fixture
def calls(monkeypatch):
    import comfy.model_base

    made, inner = [], comfy.model_base.BaseModel.apply_model
    monkeypatch.setattr(
        comfy.model_base.BaseModel,
        "apply_model",
        lambda self, x, *args, **kwargs: made.append(len(x)) or inner(self, x, *args, **kwargs),
    )
    return made


def rows():
    for name, (_, refused) in PATCHES.items():
        for way in WAYS:
            if (name, way) != ("EasyCache", "windows"):  # where it skips steps in one window: test_attachments.py
                quick = way in (*refused, "rolling")
                yield pytest.param(name, way, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "way"), list(rows()))
def test_a_patch_is_right_or_refused_before_the_first_call(name, way, model, calls, monkeypatch):
    put, refused = PATCHES[name]
    if way in refused:
        put(model)
        calls.clear()
        with pytest.raises(ValueError, match=refused[way]) as error:
            WAYS[way](put, model, monkeypatch)
        assert not calls and "\n" not in str(error.value)
        assert str(error.value).endswith("or take it out")
        return
    close(WAYS[way](put, model, monkeypatch), plain(name, model), 1e-4)


# Video models: a patch takes a clip for one picture

VIDEO = {
    "APG": (patched("nodes_apg", "APG", 0.5, 2.0, 0.0), "reads one noise level for the whole clip"),
    "CFGNorm": (patched("nodes_cfg", "CFGNorm", 0.9), None),
    "CFGZeroStar": (patched("nodes_cfg", "CFGZeroStar"), "measures all frames of a call together"),
    "EasyCache": (
        patched("nodes_easycache", "EasyCacheNode", 0.2, 0.0, 1.0, False),
        "goes on from what the model gave in the call before",
    ),
    "EpsilonScaling": (patched("nodes_eps", "EpsilonScaling", 1.05), None),
    "FreSca": (patched("nodes_fresca", "FreSca", 0.8, 1.5, 2), None),
    "LazyCache": (
        patched("nodes_easycache", "LazyCacheNode", 0.2, 0.0, 1.0, False),
        "goes on from what the model gave in the call before",
    ),
    "Mahiro": (patched("nodes_mahiro", "Mahiro"), "measures all frames of a call together"),
    "RescaleCFG": (patched("nodes_model_advanced", "RescaleCFG", 0.7), "reads one noise level for the whole clip"),
    "SkipLayerGuidanceDiT": (
        patched("nodes_slg", "SkipLayerGuidanceDiT", 3.0, 0.0, 1.0, "0", "", 0.0),
        "reads one noise level for the whole clip",
    ),
    "SkipLayerGuidanceDiTSimple": (
        patched("nodes_slg", "SkipLayerGuidanceDiTSimple", 0.0, 1.0, "0", ""),
        "reads one noise level",
    ),
    "TCFG": (patched("nodes_tcfg", "TCFG"), "measures all frames of a call together"),
    "TSR": (patched("nodes_eps", "TemporalScoreRescaling", 0.9, 1.0), "reads one noise level for the whole clip"),
}


VIDEO_CONDS = {"positive": wan_text(5), "negative": wan_text(6), "cfg": 3.0}
VIDEO_SIGMAS, VIDEO_LATENT = torch.tensor([1.0, 0.8, 0.5, 0.0]), torch.zeros(1, 16, 3, 4, 6)


def on_video(name, sampler, sigmas=VIDEO_SIGMAS, latent=VIDEO_LATENT):
    return advanced(VIDEO[name][0](wan_model())[0], sampler, latent, sigmas, **VIDEO_CONDS)


def refused_on_video(calls, words, name, sampler, **given):
    with pytest.raises(ValueError, match=words) as error:
        on_video(name, sampler, **given)
    assert not calls and "\n" not in str(error.value)


@pytest.mark.parametrize("name", VIDEO)
def test_a_patch_on_a_video_model_is_right_or_refused_before_the_first_call(comfyui, name, calls):
    sampler, words = forcing("pyramid", 3, 3, lag=1.0), VIDEO[name][1]
    if words:
        refused_on_video(calls, words, name, sampler)
    else:
        on_video(name, sampler)


@pytest.mark.parametrize("name", VIDEO)
def test_at_one_level_for_all_frames_a_patch_on_a_video_model_is_comfyuis(comfyui, name):
    made = on_video(name, forcing("full_sequence", 3, 3))
    close(made, on_video(name, theirs("euler")), 1e-4)
    step = VIDEO_SIGMAS[[0, -1]]  # of one, VDM's is Euler's
    close(on_video(name, host.forcing_sampler(VdmSampler()), step), on_video(name, theirs("euler"), step), 1e-4)


def extended(replacement="fresh", known=1):
    return host.forcing_sampler(Extension(known, window=2, overlap=1, sampler=VdmSampler(replacement=replacement)))


@pytest.mark.parametrize(
    ("name", "sampler", "words"),
    [
        ("EasyCache", extended, "goes on from what the model gave in the call before"),
        ("TCFG", extended, "measures all frames of a call together"),
        ("RescaleCFG", lambda: extended("none"), "reads one noise level for the whole clip"),
        ("RescaleCFG", lambda: forcing("full_sequence", 3, 3, known=1), "reads one noise level for the whole clip"),
    ],
    ids=["windows", "windows together", "clean known frames in windows", "clean known frames"],
)
def test_what_one_level_does_not_help_is_refused_on_a_video_model(comfyui, calls, name, sampler, words):
    refused_on_video(calls, words, name, sampler(), latent=torch.ones_like(VIDEO_LATENT))


def test_windows_at_one_level_keep_what_reads_that_level(comfyui):
    made = on_video("TSR", extended(), latent=torch.ones_like(VIDEO_LATENT))
    assert torch.isfinite(made).all() and (made[:, :, :1] - 1).abs().max() < 1e-5


# What patches ask of models that remember, of guidance, and of nodes that are not known


def test_what_takes_one_picture_at_a_time_is_refused(model, calls):
    """In core, a batch of more than one picture is an error of PyTorch's."""
    for node, given in (("TemporalScoreRescaling", (0.9, 1.0)),):
        with pytest.raises(ValueError, match="TSR takes one picture at a time and a clip has many: use CFGNorm or take it out"):
            sampled((ran(extra("nodes_eps", node), model, *given), None), forcing("full_sequence", FRAMES, STEPS))
    assert not calls


def test_known_frames_are_at_a_level_of_their_own(model, calls):
    given, _ = PATCHES["CFG Override at the beginning"][0](model)
    with pytest.raises(ValueError, match="CFG Override takes the first frame's noise level for that of all"):
        sampled((given, None), forcing("full_sequence", FRAMES, STEPS, known=2))
    assert not calls


class Theirs:
    """A patch of a pack that nobody knows."""

    def __call__(self, args):
        return args["denoised"]


def test_an_unknown_patch_is_warned_of_once(model, caplog):
    from pack.host.comfyui.parts import patches

    patches.WARNED.clear()
    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(Theirs())
    with caplog.at_level(logging.WARNING, "longtake"):
        sampled((patched, None))
        assert "not known to LongTake" not in caplog.text, "KSampler shows it what it was made for"
        for _ in range(2):
            sampled((patched, None), forcing("pyramid", FRAMES, STEPS, lag=2.0))
    (said,) = [record.message for record in caplog.records if "not known to LongTake" in record.message]
    assert said.startswith("test_core_patches.Theirs hangs on the model")


def test_modules_are_known_by_where_comfyui_puts_them():
    from pack.host.comfyui.parts.patches import PATCHES as ROWS
    from pack.host.comfyui.parts.patches import known_patch, title_of

    def loaded(args):
        return args

    loaded.__module__, loaded.__qualname__ = "/opt/ComfyUI/comfy_extras/nodes_sag", "SelfAttentionGuidance.execute.<locals>.post"
    assert known_patch(loaded) is ROWS["nodes_sag"]
    loaded.__module__ = "/opt/ComfyUI/custom_nodes/other_x_pack"
    assert known_patch(loaded) is None and title_of(loaded).startswith("other_x_pack.SelfAttention")
    loaded.__module__ = "comfy.model_patcher"
    assert title_of(loaded) == ""
