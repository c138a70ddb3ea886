"""Nodes that put motion modules into a model, with all that is connected to them, as ours one behind the other."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .graph import Node, Source
from .rows import FUSES, NOISES, ROWS, SCHEDULES, SETTINGS, TEXT, WINDOWS

if TYPE_CHECKING:
    from .convert import Conversion

FACTORS: tuple[str, ...] = ("effect", "scale")


def chain(conversion: "Conversion", node: Node | None, previous: str) -> list[tuple[str, Node]]:
    """Nodes of which each is connected to the next by ``previous``, the first one first."""
    found: list[tuple[str, Node]] = []
    ids = {id(item): key for key, item in conversion.graph.nodes.items()}
    while node is not None and all(node is not item for _, item in found):
        found.append((ids[id(node)], node))
        node = conversion.before(node, previous)
    return found[::-1]


def evolved(conversion: "Conversion", id: str, node: Node) -> None:
    """Use Evolved Sampling: motion models, one or more, then windows and settings."""
    models = chain(conversion, conversion.before(node, "m_models"), "prev_m_models")
    strange = [item for _, item in models if item.kind not in ("ADE_ApplyAnimateDiffModel", "ADE_ApplyAnimateDiffModelSimple")]
    if strange or "model" not in node.links:
        what = f"{strange[0].kind} is not converted: Apply Camera and First Frame do it here" if strange else "it has no model"
        conversion.say(id, f"it stays as it is, with all before it: {what}")
        return
    model = node.links["model"]
    for key, item in models:
        if "motion_model" not in item.links:
            conversion.say(key, "it has no motion model and is left out")
            continue
        model = applied(conversion, key, item, model, item.links["motion_model"], node)
        conversion.taken.add(key)
    conversion.put(id, {0: windowed(conversion, id, node, model)})


def loader(conversion: "Conversion", id: str, node: Node) -> None:
    """AnimateDiff Loader, of the first generation: one motion module with everything."""
    if "model" not in node.links:
        conversion.say(id, "it stays as it is: it has no model")
        return
    file = {"motion_module": node.values.get("model_name", "")}
    module = conversion.add("LongTakeLoadMotionModule", id, file, {})
    conversion.left_out(
        id, {"ad_settings": "positions of a module are set by Apply Motion Module, its weights by Motion Keyframe"}
    )
    model = applied(conversion, id, node, node.links["model"], (module, 0), node)
    conversion.put(id, {0: windowed(conversion, id, node, model)})


APPLYING: dict[str, Callable[["Conversion", str, Node], None]] = {
    "ADE_UseEvolvedSampling": evolved,
    "ADE_AnimateDiffLoaderGen1": loader,
    "ADE_AnimateDiffLoaderWithContext": loader,
}


def applied(conversion: "Conversion", id: str, node: Node, model: Source, module: Source, sampling: Node) -> Source:
    """The model with a motion module in it, and its LoRAs."""
    schedule = sampling.values.get("beta_schedule", "autoselect")
    if schedule not in SCHEDULES:
        conversion.say(id, f"beta_schedule {schedule} is left out: the module's own noise schedule is used")
    conversion.left_out(id, {"per_block": "write its numbers into blocks of Motion Keyframe, such as up.1 0.5"})
    factors, links = strengths(conversion, id, node)
    if not links and "motion_scale" in node.values:
        factors["scale"] *= float(node.values["motion_scale"])
    values = {
        **(dict.fromkeys(FACTORS, 1.0) if links else factors),
        "start_percent": node.values.get("start_percent", 0.0),
        "end_percent": node.values.get("end_percent", 1.0),
        "noise_schedule": SCHEDULES.get(schedule, "authors"),
    }
    keyframes = keyed(conversion, id, node, factors, links)
    made = conversion.add(
        "LongTakeApplyMotionModule", id, values, {"model": model, "motion_module": module, "keyframes": keyframes}
    )
    for _, lora in chain(conversion, conversion.before(node, "motion_lora"), "prev_motion_lora"):
        values = {"lora_name": lora.values.get("name", ""), "strength": lora.values.get("strength", 1.0)}
        made = conversion.add("LongTakeApplyMotionLora", id, values, {"model": (made, 0)})
    return made, 0


def strengths(conversion: "Conversion", id: str, node: Node) -> tuple[dict[str, float], dict[str, Source]]:
    """Effect and scale as numbers, and what else is connected to them: masks, and numbers per frame, by our inputs' names."""
    factors: dict[str, float] = dict.fromkeys(FACTORS, 1.0)
    links: dict[str, Source] = {}
    for name in FACTORS:
        given = conversion.before(node, f"{name}_multival")
        if given is None:
            continue
        numbers = conversion.before(given, "floats") or conversion.before(given, "float_val")
        if not given.kind.startswith("ADE_MultivalDynamic"):
            conversion.say(id, f"{name}_multival is left out: {given.kind} is not converted; connect a mask to Motion Keyframe")
            continue
        if numbers is not None and TEXT in getattr(ROWS.get(numbers.kind), "outputs", ()):
            source = conversion.source(given, "floats") or conversion.source(given, "float_val")
            links[f"{name}_per_frame"] = (source[0] if source else "", TEXT)
        elif numbers is not None:
            conversion.say(id, f"{name}'s number comes from {numbers.kind}: connect it to {name} by hand")
        factors[name] = float(given.values.get("float_val", 1.0))
        if "mask_optional" in given.links:
            links[f"{name}_mask"] = given.links["mask_optional"]
    return factors, links


def keyed(
    conversion: "Conversion", id: str, node: Node, factors: Mapping[str, float], links: Mapping[str, Source]
) -> Source | None:
    """Motion Keyframes for what is no plain number, and for what changes over sampling; None where there is neither."""
    made: Source | None = None
    if links:
        values = {**factors, "start_percent": 0.0}
        made = conversion.add("LongTakeMotionKeyframe", id, values, links), 0
    later = chain(conversion, conversion.before(node, "ad_keyframes"), "prev_ad_keyframes")
    if later and made is not None:
        conversion.say(id, "its keyframes replace masks and numbers per frame from their start on, where they were multiplied")
    kept = dict.fromkeys(FACTORS, 1.0)
    for key, item in later:
        conversion.left_out(key, {"per_block_replace": "write its numbers into blocks of Motion Keyframe"})
        given, more = strengths(conversion, key, item)
        named = [name for name in FACTORS if f"{name}_multival" in item.links]
        kept = {
            **(kept if item.values.get("inherit_missing", True) else dict.fromkeys(FACTORS, 1.0)),
            **{n: given[n] for n in named},
        }
        values = {**kept, "start_percent": item.values.get("start_percent", 0.0)}
        made = conversion.add("LongTakeMotionKeyframe", key, values, {**more, "keyframes": made}), 0
    return made


def windowed(conversion: "Conversion", id: str, node: Node, model: Source) -> Source:
    """The model with its context windows, its noise and its iterations."""
    options = chain(conversion, conversion.before(node, "context_options"), "prev_context")
    window = {"length": 16, "overlap": 4}
    if options:
        key, given = options[0]
        if len(options) > 1 or given.values.get("start_percent"):
            conversion.say(key, "windows that change over sampling are left out: the first ones are used throughout")
        views = conversion.before(given, "view_opts_req") or conversion.before(given, "view_opts")
        if views is not None and given.kind != "ADE_ViewsOnlyContextOptions":
            conversion.say(key, "view_opts is left out: here windows are of the whole model, or inside its motion module")
        plan = views if given.kind == "ADE_ViewsOnlyContextOptions" else given
        if plan is None or plan.kind not in WINDOWS:
            conversion.say(key, f"the windows of {(plan or given).kind} are left out: set Context Windows by hand")
        else:
            values = window_of(conversion, key, plan, "views" if plan is views else "whole")
            window = {name: values[name] for name in window}
            model = conversion.add("LongTakeContextWindows", id, values, {"model": model}), 0
    settings = conversion.before(node, "sample_settings")
    if settings is not None:
        model = settled(conversion, id, settings, model, window)
    return model


def window_of(conversion: "Conversion", id: str, plan: Node, mode: str) -> dict[str, Any]:
    """Context Windows' values."""
    word = "view" if "view_length" in plan.values else "context"
    fuse = str(plan.values.get("fuse_method", "flat" if plan.kind.endswith("LoopedUniformContextOptions") else "pyramid"))
    fuse = fuse.removeprefix("🔬")
    if fuse not in FUSES:
        conversion.say(id, f"fuse_method {fuse} is not here: pyramid is used")
    if plan.values.get("use_on_equal_length"):
        conversion.say(id, "use_on_equal_length is left out: a clip as long as a window is one window")
    return {
        "mode": mode,
        "schedule": WINDOWS[plan.kind],
        "length": plan.values.get(f"{word}_length", 16),
        "overlap": plan.values.get(f"{word}_overlap", 0 if plan.kind == "ADE_BatchedContextOptions" else 4),
        "stride": plan.values.get(f"{word}_stride", 1),
        "closed_loop": plan.values.get("closed_loop", False),
        "fuse": fuse if fuse in FUSES else "pyramid",
    }


def settled(conversion: "Conversion", id: str, settings: Node, model: Source, window: Mapping[str, int]) -> Source:
    """The model with the noise and the iterations of Sample Settings."""
    key = next(name for name, item in conversion.graph.nodes.items() if item is settings)
    conversion.left_out(key, SETTINGS)
    kind = settings.values.get("noise_type", "default")
    if kind in NOISES:
        values = {**window, "kind": NOISES[kind], "seed_offset": settings.values.get("seed_offset", 0)}
        model = conversion.add("LongTakeClipNoise", id, values, {"model": model}), 0
    elif kind != "default":
        conversion.say(key, f"noise_type {kind} is left out: no noise is a sampler's setting")
    if str(settings.values.get("seed_gen", "comfy")) != "comfy":
        conversion.say(key, f"seed_gen {settings.values['seed_gen']} is left out: other frames come of the same seed")
    for name in ("batch_offset", "seed_offset"):
        if settings.values.get(name) and (name == "batch_offset" or kind == "default"):
            conversion.say(key, f"{name} is left out: change the sampler's seed")
    again = conversion.before(settings, "iteration_opts")
    if again is not None and again.kind == "ADE_IterationOptsFreeInit":
        given = {
            "iterations": "iterations",
            "filter": "filter",
            "n_butterworth": "order",
            "d_s": "spatial_stop",
            "d_t": "temporal_stop",
        }
        usual = {"iterations": 2, "filter": "butterworth", "n_butterworth": 4, "d_s": 0.25, "d_t": 0.25}
        values = {ours: again.values.get(name, usual[name]) for name, ours in given.items()}
        model = conversion.add("LongTakeFreeInit", id, values, {"model": model}), 0
    elif again is not None and again.values.get("iterations", 1) != 1:
        conversion.say(key, f"{again.kind} is left out: FreeInit samples several times here")
    return model
