"""What ComfyUI's nodes and other packs hang on a MODEL, before a sampler that calls the model otherwise than ComfyUI's samplers do.

Most patches look at each frame by itself and are right however a clip is shown. Some look at one noise level for all frames, go on from
the call before, or measure all frames of a call together. What each needs is a row of ``PATCHES``; what a sampler's calls are like is a
``Calls``; where the two do not fit, the sampling is refused before the model is called. A patch that has no row is warned of, once.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import getclosurevars, isfunction, ismethod
from typing import Any

log = logging.getLogger("longtake")
PACK = __name__.partition(".host.")[0] + "."
CORE = ("comfy.", "comfy_api.")  # ComfyUI's own machinery, which is no patch of a node's
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Calls:
    """How a sampler calls the model.

    Attributes:
        mixed: frames of a call have noise levels of their own.
        moving: the next call is about other frames, or about other variants of them.
        split: what is asked of the model at once is several calls: windows of the whole model, or variants one by one.
        recalled: the model remembers every call.
        video: frames lie in an axis of their own, and patches take a clip for one picture.
        top: the sigma of pure noise.
    """

    mixed: bool = False
    moving: bool = False
    split: bool = False
    recalled: bool = False
    video: bool = False
    top: float = 0.0


@dataclass(frozen=True)
class Need:
    """What a patch may need of the calls.

    Attributes:
        lacking: whether calls do not give it.
        why: what is said then, after the patch's name.
        way_out: beside taking the patch out.
    """

    lacking: Callable[[Calls], bool]
    why: str
    way_out: str = "use KSampler"


NEEDS = {
    "level": Need(
        lambda calls: calls.mixed, "takes the first frame's noise level for that of all, and this sampler has one per frame"
    ),
    "number": Need(lambda calls: calls.mixed, "reads one noise level for the whole clip, and this sampler has one per frame"),
    "frames": Need(
        lambda calls: calls.mixed or calls.moving,
        "goes on from what the model gave in the call before, and this sampler shows it other frames, or the same at other noise levels,"
        " in every call",
    ),
    "place": Need(
        lambda calls: calls.mixed or calls.moving,
        "goes by a frame's place in the call, and this sampler shows other frames in every call",
    ),
    "clip": Need(
        lambda calls: calls.mixed or calls.moving,
        "measures all frames of a call together, and this sampler shows a few of them, or each at a noise level of its own",
    ),
    "call": Need(
        lambda calls: calls.split,
        "keeps what the last call of the network gave, and here each step is several: windows of the whole model, or variants of History"
        " Guidance",
        "set mode of Context Windows to temporal, or leave out what makes several calls",
    ),
    "once": Need(
        lambda calls: calls.recalled,
        "calls the model once more in every step, and this model remembers each call for the next",
        "use a model without memory",
    ),
    "picture": Need(lambda calls: True, "takes one picture at a time and a clip has many", "use CFGNorm"),
}


@dataclass(frozen=True)
class Patch:
    """What a node hangs on a MODEL, or a GUIDER of its own.

    Attributes:
        node: what the node is called.
        image: names in ``NEEDS``, for models whose frames lie in the batch axis.
        video: the same, for those that have an axis for them.
        unless: for a need, with which settings there is none, and how to get there.
    """

    node: str = ""
    image: tuple[str, ...] = ()
    video: tuple[str, ...] = ()
    unless: Mapping[str, tuple[Callable[[Settings, Calls], bool], str]] = field(default_factory=dict)

    def check(self, settings: Settings, calls: Calls) -> None:
        """Refuse it where calls do not give what it needs.

        Raises:
            ValueError: one sentence.
        """
        for name in self.video if calls.video else self.image:
            need, (spared, setting) = NEEDS[name], self.unless.get(name, (lambda settings, calls: False, ""))
            if need.lacking(calls) and not spared(settings, calls):
                ways = [*([setting] if setting else []), need.way_out, "take it out"]
                raise ValueError(f"{self.node} {need.why}: {', '.join(ways[:-1])} or {ways[-1]}")


def acts_always(settings: Settings, calls: Calls) -> bool:
    """Whether a patch acts in all of a sampling, so that nothing hangs on the noise level; what has no range does not look."""
    start, end = settings.get("sigma_start", settings.get("sigma_hi")), settings.get("sigma_end", settings.get("sigma_lo"))
    return (start is None and end is None) or (start is not None and end is not None and start >= calls.top and end <= 0)


RANGE = {"level": (acts_always, "set its start_percent to 0 and its end_percent to 1")}
FLAT = {"clip": (lambda settings, calls: settings.get("rescaling_scale", 0) == 0, "set its rescaling_scale to 0")}
STILL = {"frames": (lambda settings, calls: settings.get("momentum") == 0, "set its momentum to 0")}
EACH_FRAME = Patch()  # sees each frame by itself
# by how the module's name ends and the function's begins; the first that fits counts, and what none fits is not known
PATCHES = {
    "nodes_apg.APG": Patch("APG", ("frames",), ("number", "clip"), STILL),
    "nodes_cfg.CFGNorm": EACH_FRAME,
    "nodes_cfg.CFGZeroStar": Patch("CFGZeroStar", (), ("clip",)),
    "nodes_custom_sampler.CFGOverride": Patch("CFG Override", ("level",), ("level",), RANGE),
    "nodes_custom_sampler.Guider": EACH_FRAME,
    "nodes_easycache.easycache_forward": Patch("EasyCache", ("frames",), ("frames",)),
    "nodes_easycache.lazycache_predict": Patch("LazyCache", ("frames",), ("frames", "number")),
    "nodes_easycache": EACH_FRAME,  # what goes with the two
    "nodes_eps.EpsilonScaling": EACH_FRAME,
    "nodes_eps.TemporalScoreRescaling": Patch("TSR", ("picture",), ("number",)),
    "nodes_freelunch": EACH_FRAME,
    "nodes_fresca": EACH_FRAME,
    "nodes_hypernetwork": EACH_FRAME,
    "nodes_hypertile": EACH_FRAME,
    "nodes_latent.LatentApplyOperationCFG": Patch("LatentApplyOperationCFG", (), ("clip",)),
    "nodes_lumina2.RenormCFG": Patch("RenormCFG", ("picture",), ("number", "clip")),
    "nodes_mahiro": Patch("Mahiro", ("clip",), ("clip",)),
    "nodes_model_advanced.RescaleCFG": Patch("RescaleCFG", (), ("number", "clip")),
    "nodes_model_downscale": Patch("PatchModelAddDownscale", ("level",), ("level",), RANGE),
    "nodes_nag": EACH_FRAME,
    "nodes_pag": Patch("PerturbedAttentionGuidance", ("once",), ("once",)),
    "nodes_perpneg.PerpNeg": Patch("PerpNeg", ("clip", "once"), ("clip", "once")),
    "nodes_perpneg.Guider_PerpNeg": Patch("PerpNegGuider", ("clip",), ("clip",)),
    "nodes_sag": Patch("SelfAttentionGuidance", ("call", "once"), ("call", "once")),
    "nodes_slg.SkipLayerGuidance": Patch(
        "SkipLayerGuidance", ("level", "clip", "once"), ("number", "clip", "once"), {**RANGE, **FLAT}
    ),
    "nodes_tcfg": Patch("TCFG", (), ("clip",)),
    "nodes_tomesd": EACH_FRAME,
    "nodes_video_model.VideoLinearCFG": Patch("VideoLinearCFGGuidance", ("place",)),
    "nodes_video_model.VideoTriangleCFG": Patch("VideoTriangleCFGGuidance", ("place",)),
    "CrossAttentionPatch.Attn2Replace": EACH_FRAME,  # ComfyUI_IPAdapter_plus: it asks which frames a call is about
    "tiled_diffusion": EACH_FRAME,  # ComfyUI-TiledDiffusion
}


def check_patches(options: Mapping[str, Any], guider: Any, calls: Calls) -> None:
    """Refuse what hangs on a MODEL, or the GUIDER, where a sampler's calls are not what it needs; warn of what is not known.

    Args:
        options: model options of the sampling.
        guider: ComfyUI's.
        calls: the sampler's.

    Raises:
        ValueError: one sentence.
    """
    for hung in (*hangs(options), type(guider)):
        title, patch = title_of(hung), known_patch(hung)
        if patch is not None:
            patch.check(settings_of(hung), calls)
        elif title and (calls.mixed or calls.moving) and title not in WARNED:
            WARNED.add(title)
            log.warning(UNKNOWN, title)


UNKNOWN = (
    "%s hangs on the model and is not known to LongTake: if it looks at the noise level, at all frames of a call together, or at the call"
    " before, it is wrong under this sampler, which shows frames at noise levels of their own; compare with it left out"
)
WARNED: set[str] = set()  # titles that were warned of since ComfyUI started


def keeps_calls(options: Mapping[str, Any]) -> bool:
    """Whether something on a MODEL keeps what a call of the network gave, so that its layers must see all rows of the call together."""
    return any("call" in patch.image for patch in map(known_patch, hangs(options)) if patch is not None)


def known_patch(hung: Any) -> Patch | None:
    """What is known of something that hangs on a MODEL; None for nothing."""
    title = title_of(hung)
    return next((patch for start, patch in PATCHES.items() if title.startswith(start)), None)


def title_of(hung: Any) -> str:
    """The name of the file that something comes from, and its own in it; empty for what is ours or ComfyUI's machinery."""
    named = hung if isfunction(hung) or ismethod(hung) or isinstance(hung, type) else getattr(hung, "func", type(hung))
    if f"{named.__module__}.".startswith((PACK, *CORE)):
        return ""
    file = re.split(r"[./\\]", named.__module__)[-1]  # ComfyUI names modules by their path
    return f"{file}.{named.__qualname__}"


def settings_of(hung: Any) -> Settings:
    """What a patch was given: the variables around a function, or an object's own."""
    return getclosurevars(hung).nonlocals if isfunction(hung) else getattr(hung, "__dict__", {})


def hangs(options: Mapping[str, Any]) -> Iterator[Any]:
    """Every function that nodes hung on a MODEL, from its model options."""
    for name in ("sampler_calc_cond_batch_function", "sampler_cfg_function", "model_function_wrapper"):
        yield from [options[name]] if name in options else []
    for name in ("sampler_pre_cfg_function", "sampler_post_cfg_function"):
        yield from options.get(name, [])
    transformer: Mapping[str, Any] = options.get("transformer_options", {})
    yield from _flat(transformer.get("patches", {}).values())
    for kind in ("patches_replace", "wrappers"):
        for kept in transformer.get(kind, {}).values():
            yield from _flat(kept.values())


def _flat(several: Iterable[Any]) -> Iterator[Any]:
    for one in several:
        yield from one if isinstance(one, list) else [one]
