"""The workflows for Wan and SkyReels-V2 in ComfyUI's own executor, on small files through ComfyUI's loader, to the video file.

Only the text encoder is a stand-in; the VAE is ComfyUI's, with few channels.
"""

from pathlib import Path

import pytest
import torch
from small_skyreels import fps_weights
from small_wan_graphs import WIDTH, SmallVae, graph_of, run, titled, wan_files, wan_state
from small_workflows import read_video
from tiny_wan_vae import wan_vae

SKYREELS = "Wan2_1-SkyReels-V2-DF-1_3B-540P_fp32.safetensors"
HIGH, LOW = (f"wan2.2_t2v_{which}_noise_14B_fp8_scaled.safetensors" for which in ("high", "low"))
TEXT, IMAGE = "wan2.1_t2v_1.3B_fp16.safetensors", "wan2.1_i2v_480p_14B_fp8_scaled.safetensors"
SKYREELS_STEPS = [("All frames together", "steps", 2), ("Five frames are known", "steps", 2), ("30 steps", "steps", 2)]


def sized(title, length, *more):
    return [(title, "width", 64), (title, "height", 32), (title, "length", length), *more]


# workflow -> what is made smaller, pictures, and changes that its note says to try
SMALL = {
    "skyreels_next_clip": (
        sized(
            *("97 pictures", 33, ("All frames together", "frames", 9), ("Five frames are known", "frames", 9)),
            *(*SKYREELS_STEPS, ("Last 17 pictures", "batch_index", 16)),
        ),
        33 + 16,
        [[("What comes next", "text", "something else")]],
    ),
    "skyreels_synchronous": (
        sized(
            *("257 pictures", 33, ("20 frames at a time", "frames", 9), ("20 frames at a time", "block", 4)),
            *(("20 frames at a time", "steps", 3), ("20 frames at a time", "lag", 3.0), ("30 steps", "steps", 3)),
        ),
        33,
        [[("Window of 25 latent frames", "order", "euler")], [("20 frames at a time", "block", 2)]],
    ),
    "skyreels_fifo": (
        sized("237 pictures", 17, ("Queue of 24 latent frames", "window", 4), ("24 steps", "steps", 4)),
        17,
        [[("Queue of 24 latent frames", "lookahead", True)], [("Queue of 24 latent frames", "eta", 0.5)]],
    ),
    "wan_two_experts": (
        sized(
            "81 pictures", 13, ("All frames together", "frames", 4), ("All frames together", "steps", 4), ("20 steps", "steps", 4)
        ),
        13,
        [[("Sampler", "order", "euler")], [("Both experts", "boundary", 0.5)]],
    ),
    "wan_image_to_video": (
        sized(
            "81 pictures", 13, ("All frames together", "frames", 4), ("All frames together", "steps", 3), ("20 steps", "steps", 3)
        ),
        13,
        [[("Sampler", "order", "heun")], [("First picture", "image", "other.png")]],
    ),
    "wan_extend": (
        sized(
            *("81 pictures", 13, ("Clip", "steps", 2), ("Make it longer", "steps", 2), ("Make it longer", "window", 3)),
            *(("Make it longer", "overlap", 1), ("Make it longer", "new_frames", 3)),
        ),
        25,
        [[("Make it longer", "overlap", 2)], [("Make it longer", "corrector_steps", 0)], [("Make it longer", "weight", 2.0)]],
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_lengths_that_stand_in_several_nodes_agree(name):
    graph = graph_of(name)
    (length,) = {node["inputs"]["length"] for node in graph.values() if "width" in node["inputs"]}
    steps = {node["inputs"]["steps"] for node in graph.values() if "scheduler" in node["inputs"]}
    for node in graph.values():
        given = node["inputs"]
        if node["class_type"] == "LongTakeNoiseLevels":
            assert given["frames"] == (length - 1) // 4 + 1 and {given["steps"]} == steps
        if node["class_type"] == "LongTakeFifoSampler":
            assert {given["window"] * given["partitions"]} == steps
        if node["class_type"] == "LongTakeForcingSampler":
            levels = graph[given["noise_levels"][0]]["inputs"]
            assert given["window"] >= min(levels["frames"], levels["window"] or levels["frames"])
    notes = [node["_meta"]["note"] for node in graph.values() if "note" in node["_meta"]]
    titles = [node["_meta"]["title"] for node in graph.values()]
    assert len(set(titles)) == len(titles) and len(notes) == 1 and "To try:" in notes[0]
    assert all(title in titles for title in notes[0].split('"')[1::2])


def test_the_overlap_is_what_the_note_says():
    graph = graph_of("skyreels_next_clip")
    last, left = titled(graph, "Last 17 pictures"), titled(graph, "Without the overlap")
    assert (
        last["batch_index"] + last["length"] == titled(graph, "97 pictures")["length"] and left["batch_index"] == last["length"]
    )
    assert titled(graph, "Five frames are known")["known"] == (last["length"] - 1) // 4 + 1


@pytest.fixture(scope="module")
def files(comfyui):
    import folder_paths
    from PIL import Image

    SmallVae.vae = wan_vae(pytest.MonkeyPatch())
    folder, drawn = Path(folder_paths.get_input_directory()), []
    for name, colour in (("example.png", (200, 40, 90)), ("other.png", (10, 220, 30))):
        if not (folder / name).exists():
            Image.new("RGB", (64, 32), colour).save(folder / name)
            drawn.append(folder / name)
    fps = {key: 0.3 * value / WIDTH**0.5 for key, value in fps_weights(WIDTH).items()}
    states = {SKYREELS: wan_state() | fps, HIGH: wan_state(2), LOW: wan_state(3), TEXT: wan_state(4)}
    states[IMAGE] = wan_state(5, in_dim=36, model_type="i2v")
    with wan_files(states):
        yield
    SmallVae.vae = None
    for path in drawn:
        path.unlink()


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    kept = {}

    def once(name):
        if name not in kept:
            smaller, *_ = SMALL[name]
            kept[name] = run(name, tmp_path_factory.mktemp(name), smaller, (PICTURES.get(name, "Pictures"),))
        return kept[name]

    return once


PICTURES = {"skyreels_next_clip": "Joined"}


@pytest.mark.comfy
@pytest.mark.parametrize("name", SMALL)
def test_a_workflow_makes_its_video(name, made):
    results, kept = made(name)
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video)[0] == SMALL[name][1]
    (pictures,) = kept.values()
    assert pictures.shape == (SMALL[name][1], 32, 64, 3) and torch.isfinite(pictures).all()
    assert (pictures[1:] - pictures[:-1]).abs().amax(dim=(1, 2, 3)).max() > 1e-3


def knobs():
    for name, (_, _, tries) in SMALL.items():
        for number, changes in enumerate(tries):
            marks = () if number == 0 else pytest.mark.slow
            yield pytest.param(name, changes, marks=marks, id=f"{name}-{changes[0][1]}")


@pytest.mark.comfy
@pytest.mark.parametrize(("name", "changes"), list(knobs()))
def test_what_a_note_says_to_try_changes_the_pictures(name, changes, made, tmp_path):
    title = PICTURES.get(name, "Pictures")
    before = made(name)[1][title]
    after = run(name, tmp_path, [*SMALL[name][0], *changes], (title,))[1][title]
    assert before.shape == after.shape and (before - after).abs().max() > 1e-4


@pytest.mark.comfy
def test_the_overlap_is_decoded_and_encoded_again(files, tmp_path):
    """As SkyReels-V2's authors join clips: the known frames are what the VAE makes of the last pictures, and come back unchanged."""
    keep = ("First clip", "Encoded again", "Next clip", "First pictures", "Joined")
    _, kept = run("skyreels_next_clip", tmp_path, SMALL["skyreels_next_clip"][0], keep)
    first, again, following = (kept[title]["samples"] for title in keep[:3])
    vae = SmallVae.vae
    pictures = vae.decode(first).flatten(0, -4)
    assert torch.equal(again, vae.encode(pictures[-17:, ..., :3]))
    assert again.shape[2] == 5
    torch.testing.assert_close(following[:, :, :5], again, rtol=0, atol=1e-5)
    assert (again[:, :, 0] - first[:, :, -5]).abs().max() > 1e-2, "latents cut out of the clip are others"
    joined = kept["Joined"]
    torch.testing.assert_close(joined[:33], kept["First pictures"])
    torch.testing.assert_close(joined[33:], vae.decode(following).flatten(0, -4)[17:])
