"""SparseCtrl: a loader, a method and Apply Advanced ControlNet, as Load Sparse Control, Keyframes and Apply Sparse Control."""

from typing import TYPE_CHECKING

from .graph import Node

if TYPE_CHECKING:
    from .convert import Conversion

LOADER, APPLY, PICTURES = "ACN_SparseCtrlLoaderAdvanced", "ACN_AdvancedControlNetApply_v2", "ACN_SparseCtrlRGBPreprocessor"
SPREADS = {"uniform": "even", "starting": "0", "ending": "-1"}


def sparse(conversion: "Conversion", id: str) -> None:
    """Apply Advanced ControlNet, where a SparseCtrl is connected to it."""
    node = conversion.graph.nodes[id]
    control = conversion.before(node, "control_net") if node.kind == APPLY else None
    if control is None or control.kind != LOADER:
        return
    left: dict[str, str] = dict.fromkeys(
        ("timestep_kf", "latent_kf_override", "weights_override", "mask_optional"), "SparseCtrl is applied as trained"
    )
    conversion.left_out(id, left)
    shown = conversion.before(node, "image")
    images, vae = node.links.get("image"), None
    if shown is not None and shown.kind == PICTURES:
        images, vae = shown.links.get("image"), shown.links.get("vae")
    frames = frames_of(conversion, id, conversion.before(control, "sparse_method"))
    keyframes = conversion.add("LongTakeKeyframes", id, {"frames": frames, "clip_frames": 0}, {"images": images})
    loaded = conversion.add("LongTakeLoadSparseControl", id, {"sparse_control": control.values.get("sparsectrl_name", "")}, {})
    say_what_differs(conversion, id, control)
    links = {name: node.links.get(name) for name in ("positive", "negative")}
    new = conversion.add(
        "LongTakeApplySparseControl",
        id,
        {
            **{
                name: node.values.get(name, usual)
                for name, usual in (("strength", 1.0), ("start_percent", 0.0), ("end_percent", 1.0))
            },
            "motion": control.values.get("use_motion", True),
            "hint_multiplier": control.values.get("sparse_hint_mult", 1.0),
            "other_multiplier": control.values.get("sparse_nonhint_mult", 1.0),
        },
        {**links, "sparse_control": (loaded, 0), "keyframes": (keyframes, 0), "vae": vae},
    )
    conversion.put(id, {0: (new, 0), 1: (new, 1)})


def frames_of(conversion: "Conversion", id: str, method: Node | None) -> str:
    """The frames of the pictures, as Keyframes writes them."""
    if method is None:
        return "even"
    if method.kind == "ACN_SparseCtrlIndexMethodNode":
        return str(method.values.get("indexes", "0"))
    spread = str(method.values.get("spread", "uniform"))
    if spread not in SPREADS:
        conversion.say(id, f"the spread {spread} is not converted: write the frames into Keyframes")
    elif spread == "uniform":
        conversion.say(id, "the pictures are spread evenly, for which Keyframes wants the clip's length: set its clip_frames")
    return SPREADS.get(spread, "0")


def say_what_differs(conversion: "Conversion", id: str, control: Node) -> None:
    """Strengths of the loader that are not converted."""
    for name in ("motion_strength", "motion_scale", "sparse_mask_mult"):
        if control.values.get(name, 1.0) != 1.0:
            conversion.say(id, f"{name} of its SparseCtrl is left out: it acts as trained")
