"""``run.py convert``: other packs' graphs as ours, in both formats; what is left out is said, and what is others' stays."""

import json
import os
from pathlib import Path

import pytest
from other_graphs import EVOLVED, GEN1, MODEL, SPARSE, drawn, node, sampled
from pack import run
from pack.host.run.convert.command import editor
from pack.host.run.convert.convert import converted, is_theirs
from pack.host.run.convert.rows import LATENTS, ROWS, SAYING, WIDGETS
from pack.nodes.node import usual_values

PUBLIC = "LONGTAKE_PUBLIC_GRAPHS"


@pytest.fixture(scope="module")
def tools():
    return editor()


def made(graph, tools):
    """The nodes after, and what was said."""
    new, said = converted(graph, *tools)
    return new, said


def only(graph, kind):
    """The inputs of the one node of a class."""
    (found,) = [(id, item["inputs"]) for id, item in graph.items() if item["class_type"] == kind]
    return found


def chain(graph, id):
    """The classes from a node's model back to the checkpoint."""
    kinds = []
    while "model" in graph[id]["inputs"]:
        id = graph[id]["inputs"]["model"][0]
        kinds.append(graph[id]["class_type"])
    return kinds[::-1]


def test_evolved_sampling_becomes_nodes_one_behind_the_other(tools):
    graph, said = made(EVOLVED, tools)
    assert said == []
    assert chain(graph, "90") == [
        "CheckpointLoaderSimple",
        "LongTakeApplyMotionModule",
        "LongTakeApplyMotionLora",
        "LongTakeApplyMotionLora",
        "LongTakeContextWindows",
        "LongTakeClipNoise",
    ]
    assert not any(is_theirs(item["class_type"]) for item in graph.values())
    motion = only(graph, "LongTakeApplyMotionModule")[1]
    assert motion["effect"] == 0.8 and motion["scale"] == 1.0 and motion["noise_schedule"] == "authors"
    assert graph[motion["motion_module"][0]]["inputs"]["motion_module"] == "v3_sd15_mm.ckpt"
    loras = [item["inputs"] for item in graph.values() if item["class_type"] == "LongTakeApplyMotionLora"]
    assert [(lora["lora_name"], lora["strength"]) for lora in loras] == [("zoom.ckpt", 0.7), ("pan.ckpt", 0.5)]
    windows = only(graph, "LongTakeContextWindows")[1]
    assert {**windows, "model": 0} == {
        **{"model": 0, "mode": "whole", "schedule": "standard_static", "length": 16, "overlap": 4},
        **{"stride": 1, "closed_loop": False, "fuse": "pyramid"},
    }
    assert only(graph, "LongTakeClipNoise")[1]["kind"] == "freenoise"
    assert only(graph, "EmptyLatentImage")[1] == {"width": 64, "height": 64, "batch_size": 24}
    assert graph["90"]["inputs"]["latent_image"] == [only(graph, "EmptyLatentImage")[0], 0]
    assert graph["92"] == EVOLVED["92"], "others' nodes stay"


def test_numbers_per_frame_loops_and_prompts(tools):
    graph, said = made(GEN1, tools)
    assert said == []
    keyframe, values = only(graph, "LongTakeMotionKeyframe")[1], only(graph, "LongTakeValueSchedule")
    assert keyframe["scale_per_frame"] == [values[0], 0] and values[1]["schedule"] == '"0": 1.0, "23": 0.5'
    assert only(graph, "LongTakeApplyMotionModule")[1]["noise_schedule"] == "linear"
    windows = only(graph, "LongTakeContextWindows")[1]
    assert windows["closed_loop"] and windows["schedule"] == "looped_uniform" and windows["fuse"] == "flat"
    id, prompts = only(graph, "LongTakePromptSchedule")
    assert (prompts["before"], prompts["after"], prompts["frames"], prompts["blend"]) == ("photo", "best", 24, "text")
    assert (graph["90"]["inputs"]["positive"], graph["90"]["inputs"]["negative"]) == ([id, 0], [id, 1])


def test_sparsectrl(tools):
    graph, said = made(SPARSE, tools)
    assert said == []
    id, control = only(graph, "LongTakeApplySparseControl")
    assert (control["strength"], control["hint_multiplier"], control["vae"]) == (0.9, 1.2, ["1", 2])
    keyframes = graph[control["keyframes"][0]]["inputs"]
    assert (keyframes["frames"], keyframes["images"]) == ("0, -1", ["10", 0])
    assert graph["90"]["inputs"]["positive"] == [id, 0]
    assert not any(is_theirs(item["class_type"]) for item in graph.values())


@pytest.mark.parametrize("api", [EVOLVED, GEN1, SPARSE], ids=["evolved", "gen1", "sparse"])
def test_the_editor_s_format_becomes_the_same_nodes(api, tools):
    wanted, said = made(api, tools)
    given = drawn(api, WIDGETS)
    graph, also_said = made(given, tools)
    assert also_said == said
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    found = {}
    for item in graph["nodes"]:
        links = {socket["name"]: sources[socket["link"]] for socket in item["inputs"] if socket["link"] is not None}
        found[str(item["id"])] = (item["type"], links)
        for slot, output in enumerate(item["outputs"]):
            for link in output["links"] or []:
                assert sources[link] == [str(item["id"]), slot]
    links_of = {
        id: (item["class_type"], {name: value for name, value in item["inputs"].items() if isinstance(value, list)})
        for id, item in wanted.items()
    }
    shift = dict(zip(sorted(wanted, key=int), sorted(found, key=int), strict=True))  # new ids begin after last_node_id
    moved = {
        shift[id]: (kind, {name: [shift[source], slot] for name, (source, slot) in links.items()})
        for id, (kind, links) in links_of.items()
    }
    assert found == moved
    assert graph["nodes"][[item["id"] for item in graph["nodes"]].index(92)]["widgets_values"] == [8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"15": {"start_percent": 0.3}}, r"node 15 .*change over sampling are left out"),
        ({"15": {"fuse_method": "random"}}, r"fuse_method random is not here: pyramid"),
        ({"17": {"beta_schedule": "sqrt"}}, r"beta_schedule sqrt is left out"),
        ({"16": {"seed_gen": "auto1111"}}, r"node 16 .*seed_gen auto1111 is left out"),
        ({"16": {"custom_cfg": ["98", 0]}, "98": node("ADE_CustomCFGSimple", cfg=3.0)}, r"custom_cfg is left out: cfg is the"),
        ({"14": {"per_block": ["98", 0]}, "98": node("ADE_ADBlockCombo", effect=1)}, r"per_block is left out: write its numbers"),
        ({"98": node("ADE_SigmaSchedule", beta_schedule="lcm")}, r"node 98 \(ADE_SigmaSchedule\): .* no counterpart .* stays"),
    ],
)
def test_what_is_left_out_is_said_with_its_node(change, words, tools):
    import re

    graph = {id: {**item, "inputs": {**item["inputs"], **change.get(id, {})}} for id, item in EVOLVED.items()}
    graph |= {id: item for id, item in change.items() if "class_type" in item}
    _, said = made(graph, tools)
    assert any(re.search(words, sentence) for sentence in said), said


def test_what_hangs_together_with_something_unknown_stays_whole(tools):
    graph = EVOLVED | {"14": node("ADE_ApplyAnimateDiffModelWithCameraCtrl", motion_model=["10", 0])}
    new, said = made(graph, tools)
    for id in ("10", "14", "15", "16", "17"):
        assert new[id] == graph[id]
    assert any("node 17" in sentence and "WithCameraCtrl is not converted" in sentence for sentence in said)


def test_keyframes_over_sampling_inherit(tools):
    graph = EVOLVED | {
        "20": node("ADE_MultivalDynamic", float_val=0.5),
        "21": node("ADE_AnimateDiffKeyframe", start_percent=0.0, effect_multival=["20", 0]),
        "22": node("ADE_AnimateDiffKeyframe", start_percent=0.5, scale_multival=["11", 0], prev_ad_keyframes=["21", 0]),
    }
    graph["14"] = {**graph["14"], "inputs": {**graph["14"]["inputs"], "ad_keyframes": ["22", 0]}}
    new, said = made(graph, tools)
    assert said == []
    found = [item["inputs"] for item in new.values() if item["class_type"] == "LongTakeMotionKeyframe"]
    assert [(item["start_percent"], item["effect"], item["scale"]) for item in found] == [(0.0, 0.5, 1.0), (0.5, 0.5, 0.8)]


@pytest.mark.parametrize("kind", LATENTS)
def test_a_schedule_as_long_as_a_latent_is_as_long_as_that(kind, tools):
    name, slot = LATENTS[kind]
    text = {"prompts": '0 = "a"', "values": "0 = 1", "text": '"0": "a"'}
    graph = MODEL | {"20": node(kind, clip=["1", 1], **{name: ["4", 0]}, **text)} | sampled(("1", 0))
    if slot is not None:
        graph["90"] = {**graph["90"], "inputs": {**graph["90"]["inputs"], "latent_image": ["20", slot]}}
    graph["99"] = node("PreviewAny", source=["20", 0])
    new, said = made(graph, tools)
    assert said == []
    schedule = graph_node(new, new["99"]["inputs"]["source"])
    assert schedule["frames"] == 24 and schedule["schedule"] in text.values()
    assert graph_node(new, new["90"]["inputs"]["latent_image"])["batch_size"] == 24


def graph_node(graph, source):
    """The inputs of the node behind a link."""
    return graph[source[0]]["inputs"]


def test_rows_name_inputs_and_outputs_that_are_there():
    nodes = run.pack_nodes()
    for theirs, row in ROWS.items():
        assert theirs in WIDGETS
        if row.kind in nodes:
            schema = nodes[row.kind].GET_SCHEMA()
            assert set(row.names.values()) <= {item.id for item in schema.inputs}
            assert max(row.outputs.values()) < len(schema.outputs)
    assert set(usual_values(nodes["LongTakePromptSchedule"].GET_SCHEMA().inputs)) >= {"interpolation", "blend", "fps"}
    assert set(SAYING) & set(ROWS) == set()


# The command


def test_the_command_writes_beside_the_graph_and_over_nothing(tmp_path, capsys):
    path = tmp_path / "dance.json"
    path.write_text(json.dumps(EVOLVED | {"98": node("ADE_SigmaSchedule")}))
    assert run.main(["convert", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "dance_longtake.json") and "node 98" in said.err
    assert chain(json.loads((tmp_path / "dance_longtake.json").read_text()), "90")[-1] == "LongTakeClipNoise"
    assert run.main(["convert", str(path)]) == 1
    assert "is there already: name another file with --to" in capsys.readouterr().err
    assert run.main(["convert", str(path), "--to", str(tmp_path / "other.json")]) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        ("{", "is no JSON"),
        ("[]", "holds no workflow"),
        ('{"1": {}}', "node 1 has no class_type"),
        (json.dumps(MODEL | sampled(("1", 0)) | {"4": node("EmptyLatentImage")}), "there is nothing to convert"),
    ],
)
def test_what_is_no_graph_is_one_sentence(content, words, tmp_path, capsys):
    path = tmp_path / "g.json"
    if content is not None:
        path.write_text(content)
    assert run.main(["convert", str(path)]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "g_longtake.json").exists()


def public():
    folder = os.environ.get(PUBLIC)
    return sorted(Path(folder).rglob("*.json")) if folder else []


@pytest.mark.skipif(not public(), reason=f"{PUBLIC} names no folder with graphs that people have published")
@pytest.mark.parametrize("path", public(), ids=lambda path: path.name)
def test_published_graphs(path, tools):
    """Whatever is in them: links lead to nodes, others' nodes stay, and each of theirs that stays is named."""
    given = json.loads(path.read_text(encoding="utf-8"))
    try:
        graph, said = made(given, tools)
    except ValueError as error:
        assert "nothing to convert" in str(error)
        return
    assert isinstance(given["nodes"], list)
    kinds = {str(item["id"]): item["type"] for item in graph["nodes"]}
    for _, source, _, target, _, _ in graph["links"]:
        assert str(source) in kinds and str(target) in kinds
    before = {str(item["id"]): item["type"] for item in given["nodes"]}
    for id, kind in before.items():
        if not is_theirs(kind) and kind not in ("Reroute", *SAYING):
            assert kinds.get(id) == kind
    for id, kind in kinds.items():
        if is_theirs(kind):
            assert any(sentence.startswith(f"node {id} ") for sentence in said)
