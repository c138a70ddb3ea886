"""Converted graphs give the frames of the graphs that they were made from, in AnimateDiff-Evolved itself, on random weights.

The environment variable LONGTAKE_NEIGHBOURS names a folder with a checkout of ComfyUI-AnimateDiff-Evolved. Its widgets' names and orders
are compared with what ``run.py convert`` takes them to be.
"""

import os
import sys
import zlib
from pathlib import Path

import pytest
import torch
from other_graphs import EVOLVED, GEN1, node
from pack import run
from pack.host.run.convert.command import editor
from pack.host.run.convert.convert import converted
from pack.host.run.convert.rows import WIDGETS

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))
CHECKOUT = Path(os.environ.get("LONGTAKE_NEIGHBOURS", "/nowhere")) / "ComfyUI-AnimateDiff-Evolved"
pytestmark = [
    pytest.mark.comfy,
    pytest.mark.skipif(not CHECKOUT.is_dir(), reason="no ComfyUI-AnimateDiff-Evolved: set LONGTAKE_NEIGHBOURS to its folder's"),
]
WIDTH, SIZE, LIMIT = 32, 8, 1e-4
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN")


@pytest.fixture(scope="module")
def theirs(comfyui):
    from parity_ade import Theirs
    from parity_cases import Models

    try:
        return Theirs(CHECKOUT, Models(WIDTH))
    except ImportError as error:  # it asks for a newer ComfyUI than the oldest that this pack runs in
        pytest.skip(f"AnimateDiff-Evolved does not load here: {error}")


def encoded(text):
    from parity_models import CONTEXT

    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return [[torch.randn(1, 4, CONTEXT, generator=generator), {}]]


def frames(graph, theirs):
    """What KSampler makes of a graph, with both packs' own nodes."""
    import nodes
    from parity_models import image_model

    ours, done = run.pack_nodes(), {}
    stand_ins = {
        "CheckpointLoaderSimple": lambda **_: (
            image_model("SD1.5", WIDTH),
            None,
            None,
        ),  # anew, with nothing of the run before in it
        "CLIPTextEncode": lambda text, **_: (encoded(text),),
        "KSampler": nodes.KSampler().sample,
    }
    latents = dict.fromkeys(
        ("EmptyLatentImage", "ADE_EmptyLatentImageLarge"),
        lambda batch_size, **_: ({"samples": torch.zeros(batch_size, 4, SIZE, SIZE)},),
    )

    def call(kind, inputs):
        if kind in stand_ins | latents:
            return (stand_ins | latents)[kind](**inputs)
        if kind in ours:
            return ours[kind].execute(**inputs).result
        cls = theirs.peer.nodes[kind]
        return getattr(cls(), cls.FUNCTION)(**inputs)

    def output(id):
        if id not in done:
            inputs = {
                name: output(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in graph[id]["inputs"].items()
            }
            done[id] = call(graph[id]["class_type"], inputs)
        return done[id]

    with torch.inference_mode():
        return output("90")[0]["samples"]


def with_files(graph, models):
    """The same with the files that there are."""
    names = {"v3_sd15_mm.ckpt": models.module("v3"), "mm_sd_v15_v2.ckpt": models.module("v2")}
    names |= dict.fromkeys(("zoom.ckpt", "pan.ckpt"), models.motion_lora("v3"))
    return {
        id: {
            **item,
            "inputs": {
                name: names.get(value, value) if isinstance(value, str) else value for name, value in item["inputs"].items()
            },
        }
        for id, item in graph.items()
    }


PLAIN = {"20": node("CLIPTextEncode", clip=["1", 1], text="snow")}
MULTIVALS = {
    "20": node("ADE_MultivalDynamic", float_val=0.5),
    "21": node("ADE_AnimateDiffKeyframe", start_percent=0.0, scale_multival=["20", 0], inherit_missing=True, guarantee_steps=1),
}


def changed(graph, **changes):
    """A graph with other inputs of some nodes."""
    return {id: {**item, "inputs": {**item["inputs"], **changes.get(f"n{id}", {})}} for id, item in graph.items()}


GRAPHS = {
    "evolved sampling: windows, two MotionLoRAs, effect, FreeNoise": EVOLVED,
    "evolved sampling: a keyframe": changed(EVOLVED | MULTIVALS, n14={"ad_keyframes": ["21", 0]}),
    "first generation: a loop, numbers per frame": changed(GEN1 | PLAIN, n90={"positive": ["20", 0], "negative": ["3", 0]}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_frames_are_those_of_the_graph_before(theirs, name):
    graph = with_files(GRAPHS[name], theirs.models)
    made, said = converted(graph, *editor())
    assert said == []
    before, after = frames(graph, theirs), frames(made, theirs)
    assert float((after - before).abs().max() / before.abs().max()) < LIMIT
    plain = {**graph, "90": {**graph["90"], "inputs": {**graph["90"]["inputs"], "model": ["1", 0]}}}
    assert float((frames(plain, theirs) - before).abs().max() / before.abs().max()) > 0.01, "and something is to be seen"


def test_widgets_are_called_and_ordered_as_there(theirs):
    """By the pack's own declarations: required inputs, then optional ones, those that are no sockets."""
    for kind, names in WIDGETS.items():
        if kind not in theirs.peer.nodes:
            continue
        declared = theirs.peer.nodes[kind].INPUT_TYPES()
        found = [
            name
            for part in ("required", "optional")
            for name, (what, *options) in declared.get(part, {}).items()
            if (isinstance(what, list) or what in WIDGET_TYPES) and not (options and options[0].get("forceInput"))
        ]
        assert tuple(found) == names, kind
