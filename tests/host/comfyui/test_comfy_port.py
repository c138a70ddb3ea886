"""The port on ComfyUI: the native video model as a MODEL, samplers through the guider, folders, progress, the headless executor."""

import asyncio
import json
from pathlib import Path

import pack
import pytest
import torch
from native import FRAMES, ask, label, noise, sample, standalone
from pack import host
from pack.modules.checkpoints.video_model import fold, unfold
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.job import Step
from pack.modules.sampling.model_view import View
from pack.modules.temporal.transformer import TemporalConfig
from tiny import LABELS, config, video_model
from tiny_motion import ksample

pytestmark = pytest.mark.comfy
ROOT = Path(pack.__file__).parent


@pytest.fixture
def video():
    return video_model()


@pytest.fixture
def model(video):
    return host.video_model(video)


def euler(levels, start):
    """Full-sequence sampling: every frame at the same level."""

    def algorithm(job):
        x = start.to(job.latent)
        for row, (now, then) in enumerate(zip(levels, levels[1:], strict=False), start=1):
            clean = job.denoise(View.plain(x, now.expand(len(x))))
            x = x + (x - clean) / now * (then - now)
            yield Step(row, len(levels) - 1, clean)
        return x

    return algorithm


VARIANTS = {
    "v, causal rotary": {},
    "eps, full sinusoid": {"prediction": "eps", "noise_schedule": "linear", "temporal": TemporalConfig(heads=2, groups=8)},
    "x0, Shaw": {
        "prediction": "x0",
        "temporal": TemporalConfig(heads=2, attentions=1, groups=4, positions="shaw", mask="causal"),
    },
    "scale and shift": {
        "unet": config(in_channels=48, out_channels=48, label_channels=len(LABELS), use_scale_shift_norm=True, groups=4),
    },
    "narrow": {"unet": config(in_channels=48, out_channels=48, label_channels=len(LABELS), model_channels=24, groups=4)},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def any_video(request):
    return video_model(**request.param)


def test_this_is_comfyui():
    assert host.name == "comfyui"


def test_a_video_model_computes_what_our_own_networks_compute(any_video):
    """One noise level per frame, two of them clean."""
    sigma = torch.tensor([0.0, 0.0, 0.3, 1.0, 4.0, 14.0])
    x = noise() * (1 + sigma[:, None, None, None])
    given = ask(host.video_model(any_video), label(), x=x, sigma=sigma)
    wanted = standalone(any_video, x, sigma, label()[0][1]["pooled_output"])
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    if any_video.info.prediction != "x0":
        torch.testing.assert_close(given[:2], x[:2], rtol=0, atol=1e-6)


def test_guidance_is_the_usual_one(video, model):
    x, sigma = noise(), torch.full((FRAMES,), 2.0)
    yes, no = label(1), label(2)
    wanted = [standalone(video, x, sigma, cond[0][1]["pooled_output"]) for cond in (yes, no)]
    given = ask(model, yes, x=x, sigma=sigma, cfg=3.0, negative=no)
    guided = wanted[1] + 3.0 * (wanted[0] - wanted[1])
    torch.testing.assert_close(given, guided, rtol=0, atol=2e-5 * float(guided.abs().max()))


def test_without_a_label_the_vector_is_zero(video, model):
    x, sigma = noise(), torch.full((FRAMES,), 2.0)
    given = ask(model, [[torch.zeros(1, 1, 1), {}]], x=x, sigma=sigma)
    torch.testing.assert_close(given, standalone(video, x, sigma, torch.zeros(1, len(LABELS))), rtol=0, atol=1e-4)


def test_a_label_vector_of_another_model_is_refused(model):
    with pytest.raises(ValueError, match="7 label values and the video model has 4 labels"):
        ask(model, label(size=7), x=noise(), sigma=torch.ones(FRAMES))


def test_frame_numbers_and_labels_of_a_window_are_those_of_the_clip(video, model):
    """A window over frames 3 to 5 gets those frames' positions and, if there is one per frame, labels."""
    positions = video_model(
        temporal=TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", mask="block_causal", mask_frames=2)
    )
    ids, y = torch.tensor([3, 4, 5]), label(rows=FRAMES)
    x, sigma = noise(3), torch.full((3,), 2.0)

    def algorithm(job):
        clean = job.denoise(View(x, sigma, ids, torch.zeros(3, dtype=torch.bool)))
        yield Step(1, 1, clean)
        return torch.cat([clean, clean])

    for cfg in (1.0, 2.0):
        given = sample(
            host.video_model(positions),
            y,
            label(4, rows=FRAMES),
            cfg=cfg,
            latent=torch.zeros(FRAMES, 48, 4, 4),
            algorithm=algorithm,
            seed=0,
        )[:3]
        wanted = standalone(positions, x, sigma, y[0][1]["pooled_output"][3:], ids)
        if cfg != 1:
            other = standalone(positions, x, sigma, label(4, rows=FRAMES)[0][1]["pooled_output"][3:], ids)
            wanted = other + cfg * (wanted - other)
        torch.testing.assert_close(given, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))
    counted = standalone(positions, x, sigma, y[0][1]["pooled_output"][3:])
    assert (counted - standalone(positions, x, sigma, y[0][1]["pooled_output"][3:], ids)).abs().max() > 1e-4


def test_the_sampler_gets_the_known_frames_as_they_were_given(model):
    latent = torch.cat([noise(2), torch.zeros(4, 48, 4, 4)])
    seen = []

    def algorithm(job):
        seen.append(job.latent.clone())
        yield Step(1, 1)
        return job.latent

    out = sample(model, label(), label(), cfg=1.0, latent=latent, algorithm=algorithm, seed=0)
    assert torch.equal(seen[0], latent) and torch.equal(out, latent)


@pytest.mark.parametrize("steps", [1, 5])
def test_full_sequence_equals_comfyuis_euler(model, steps):
    """KSampler takes the video model, and our sampling path computes what ComfyUI's does."""
    import comfy.sample
    import comfy.samplers

    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    start = comfy.sample.prepare_noise(torch.zeros(FRAMES, 48, 4, 4), 1) * (1 + levels[0] ** 2).sqrt()
    theirs = ksample(model, steps=steps, latent=torch.zeros(FRAMES, 48, 4, 4), positive=label(1), negative=label(2))
    ours = sample(
        model, label(1), label(2), cfg=2.0, latent=torch.zeros(FRAMES, 48, 4, 4), algorithm=euler(levels, start), seed=1
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_without_its_temporal_modules_nothing_is_sampled_in_silence(video, model):
    bare = model.clone()
    bare.remove_injections("longtake")
    x, sigma = noise(), torch.full((FRAMES,), 2.0)
    with pytest.raises(RuntimeError, match="is not there although the model is being sampled"):
        ask(bare, label(), x=x, sigma=sigma)


def test_the_empty_latent_of_comfyui_fits_a_pixel_model(model):
    import nodes

    latent = nodes.EmptyLatentImage().generate(width=128, height=128, batch_size=2)[0]
    out = nodes.KSampler().sample(model, 1, 1, 1.0, "euler", "normal", label(), label(), latent)[0]["samples"]
    assert out.shape[:2] == (2, 48)


def test_a_clone_knows_the_file_and_samples_the_same(video, model):
    first = ksample(model, latent=torch.zeros(FRAMES, 48, 4, 4), positive=label(1), negative=label(2))
    clone = model.clone().clone()
    assert host.video_info(clone) == video.info == host.video_info(model)
    again = ksample(clone, latent=torch.zeros(FRAMES, 48, 4, 4), positive=label(1), negative=label(2))
    assert torch.equal(first, again)


def test_a_model_of_another_kind_has_no_info():
    from tiny_motion import image_model

    assert host.video_info(image_model()) is None


def test_the_noise_schedule_is_the_files(any_video):
    wanted = NoiseSchedule.named(any_video.info.noise_schedule).sigmas
    torch.testing.assert_close(host.noise_schedule(host.video_model(any_video)).sigmas, wanted, rtol=0, atol=0)


def test_a_flow_model_has_no_such_schedule(model):
    import comfy.model_sampling

    flow = model.clone()
    kinds = comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST
    flow.add_object_patch("model_sampling", type("Flow", kinds, {})())
    with pytest.raises(ValueError, match="as flow models do"):
        host.noise_schedule(flow)


def test_pictures_through_comfyuis_vae_nodes(video):
    import nodes

    pixels = torch.rand(3, 16, 12, 3, generator=torch.Generator().manual_seed(0))
    vae = host.vae(video.info)
    latents = nodes.VAEEncode().encode(pixels=pixels, vae=vae)[0]
    assert torch.equal(latents["samples"], fold(pixels, 4))
    torch.testing.assert_close(nodes.VAEDecode().decode(vae=vae, samples=latents)[0], pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(vae.decode(vae.encode(torch.cat([pixels, pixels[..., :1]], -1))), unfold(latents["samples"], 4))


def test_a_latent_space_model_asks_for_its_vae():
    vae = host.vae(video_model(patch=0).info)
    with pytest.raises(ValueError, match="works on the latents of a VAE"):
        vae.decode(torch.zeros(1, 48, 2, 2))


def test_a_cancel_stops_the_generator_and_the_next_run_is_the_same(model):
    import comfy.model_management

    x, sigma = noise(), torch.full((FRAMES,), 2.0)
    first = ask(model, label(), x=x, sigma=sigma)
    calls, closed = [], []

    def algorithm(job):
        try:
            for row in range(1, 10):
                calls.append(row)
                clean = job.denoise(View.plain(x, sigma))
                if row == 3:
                    comfy.model_management.interrupt_current_processing(True)
                yield Step(row, 9, clean)
        finally:
            closed.append(True)
        return job.latent

    held = []  # a reference from outside: it must be closed, not merely forgotten

    def kept(job):
        held.append(algorithm(job))
        return held[0]

    with pytest.raises(host.Interrupted):
        sample(model, label(), label(), cfg=1.0, latent=torch.zeros_like(x), algorithm=kept, seed=0)
    assert calls == [1, 2, 3] and closed == [True]
    host.check_interrupt()  # the cancel was used up
    assert model.get_additional_models_with_key("longtake_motion")[0].model.frames is None
    assert torch.equal(ask(model, label(), x=x, sigma=sigma), first)


def test_an_error_in_the_algorithm_closes_it_too(model):
    closed = []

    def algorithm(job):
        try:
            yield Step(1, 2)
            raise ZeroDivisionError
        finally:
            closed.append(True)

    with pytest.raises(ZeroDivisionError):
        sample(model, label(), label(), cfg=1.0, latent=noise(), algorithm=algorithm, seed=0)
    assert closed


def test_progress_reaches_comfyuis_bar_with_a_picture_and_can_be_cancelled(monkeypatch):
    import comfy.model_management
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, node_id=None: seen.append((value, total, preview))
    )
    progress = host.Progress(4)
    progress.update(1)
    picture = torch.zeros(2, 3, 3)
    picture[0, 1] = torch.tensor([1.0, 0.5, 0.0])
    progress.update(4, picture)
    assert [item[:2] for item in seen] == [(1, 4), (4, 4)]
    kind, image, _ = seen[-1][2]
    assert kind == "JPEG" and image.size == (3, 2) and image.getpixel((1, 0)) == (255, 128, 0)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(host.Interrupted):
        progress.update(4)


def test_previews_are_the_newest_frame_and_only_when_asked_for(monkeypatch, model):
    import comfy.utils
    import latent_preview

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, node_id=None: shown.append(preview))
    x, sigma = noise(), torch.full((FRAMES,), 0.5)
    ask(model, label(), x=x, sigma=sigma)
    assert shown == [None]
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Auto)
    ask(model, label(), x=x, sigma=sigma)
    assert shown[-1][1].size == (16, 16)


def test_folders_are_listed_and_a_missing_file_says_what_is_there():
    import folder_paths

    folder = Path(folder_paths.models_dir) / "longtake"
    assert str(folder) in folder_paths.get_folder_paths("longtake_models")
    assert str(ROOT / "models") in folder_paths.get_folder_paths("longtake_models")
    folder.mkdir(exist_ok=True)
    try:
        (folder / "one.safetensors").touch()
        (folder / "readme.md").touch()
        assert "one.safetensors" in host.files("video_models") and "readme.md" not in host.files("video_models")
        assert host.file("video_models", "one.safetensors") == folder / "one.safetensors"
        with pytest.raises(ValueError, match=r"there is no 'two.safetensors' in .*one\.safetensors"):
            host.file("video_models", "two.safetensors")
    finally:  # the folder itself stays: ComfyUI remembers it and stumbles over one that is gone
        for path in folder.iterdir():
            path.unlink()
    assert all(name.endswith((".safetensors", ".ckpt")) for name in host.files("motion_loras"))  # other tests may have left some
    assert host.output_directory() == Path(folder_paths.get_output_directory())
    assert host.input_directory() == Path(folder_paths.get_input_directory())
    assert host.temp_directory() == Path(folder_paths.get_temp_directory())


TINY = {
    "_note": "a text, not a node",
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 2, "color": 0xFF0000}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "tiny"}, "_meta": {"title": "Save"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def changed(**inputs):
    """``TINY`` with other inputs: ``node_input=value``."""
    graph = json.loads(json.dumps(TINY))
    for name, value in inputs.items():
        node, _, key = name.removeprefix("n").partition("_")
        graph[node]["inputs"][key] = value
    return graph


def test_the_executor_runs_a_workflow_and_says_what_it_saved(tmp_path):
    import folder_paths
    from pack.host.comfyui.executor import run_workflow
    from PIL import Image

    before = folder_paths.get_output_directory()
    results = run_workflow(TINY, tmp_path / "out")
    assert [(item["node"], item["class_type"], item["kind"]) for item in results] == [("2", "SaveImage", "file")] * 2 + [
        ("3", "PreviewImage", "preview")
    ] * 2
    assert all(item["path"].is_file() for item in results[:2]) and not any("path" in item for item in results[2:]), (
        "previews are gone"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [item["path"].name for item in results[:2]]
    assert Image.open(results[0]["path"]).getpixel((0, 0)) == (255, 0, 0)
    assert folder_paths.get_output_directory() == before


@pytest.fixture
def module_folder():
    """ComfyUI's folder of motion modules with a broken one in it; a menu without entries is not checked by every ComfyUI."""
    import folder_paths
    from tiny_motion import motion_file

    folder = Path(folder_paths.models_dir) / "animatediff_models"
    folder.mkdir(exist_ok=True)
    path = motion_file(folder, name="broken.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    yield folder
    path.unlink()


def loading(name):
    """A workflow that loads a motion module and shows its text."""
    return {
        "4": {"class_type": "LongTakeLoadMotionModule", "inputs": {"motion_module": name}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    }


def test_the_executor_runs_this_packs_nodes(tmp_path, module_folder):
    from pack.host.comfyui.executor import run_workflow

    # 0.3.64 does not compare the values of V3 menus with their options, so there it is the node that says so
    with pytest.raises((ValueError, RuntimeError), match=r"node 4 \(LongTakeLoadMotionModule\).*none\.ckpt") as error:
        run_workflow(loading("none.ckpt"), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(
        RuntimeError, match=r"node 4 \(LongTakeLoadMotionModule\) failed: broken.safetensors cannot be read"
    ) as error:
        run_workflow(loading("broken.safetensors"), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (changed(n1_width=-5), r"node 1 \(EmptyImage\), input width: .*-5"),
        (changed(n1_width="wide"), r"node 1 \(EmptyImage\), input width: .*wide"),
        (changed(n2_images=["1"]), r"node 2 \(SaveImage\), input images"),
        (changed(n2_images=["9", 0]), r"9"),
        (
            {**TINY, "1": {"class_type": "NoSuchNode", "inputs": {}}},
            r"node 1 \(NoSuchNode\) is of a class that this ComfyUI does not have",
        ),
        ({**TINY, "1": {"inputs": {}}}, r"node 1 has no class_type"),
        ({"1": TINY["1"]}, r"no outputs"),
        ({**TINY, "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}, r"node 2 \(SaveImage\), input images"),
    ],
    ids=[
        "number out of range",
        "no number",
        "bad link",
        "link to nothing",
        "unknown class",
        "no class",
        "no outputs",
        "input left out",
    ],
)
def test_a_workflow_that_cannot_run_is_refused_by_node_class_and_input(tmp_path, graph, said):
    from pack.host.comfyui.executor import run_workflow

    with pytest.raises(ValueError, match=said) as error:
        run_workflow(graph, tmp_path)
    assert len(str(error.value).splitlines()) == 1, error.value
    assert not list(tmp_path.iterdir()), "nothing of it may have run"


def test_a_cancel_inside_the_executor_is_an_interrupt(tmp_path, monkeypatch):
    import nodes
    from pack.host.comfyui.executor import run_workflow

    run_workflow(TINY, tmp_path)  # loads the nodes

    def cancelled(self, **inputs):
        raise host.Interrupted

    monkeypatch.setattr(nodes.NODE_CLASS_MAPPINGS["EmptyImage"], "generate", cancelled)
    with pytest.raises(host.Interrupted):
        run_workflow(changed(n1_width=24), tmp_path)


def test_the_shipped_animatediff_workflow_is_valid_but_for_its_files(module_folder):
    """Its checkpoint and module are the user's to download, so those two inputs, and no others, are refused here."""
    import execution
    from pack.host.comfyui.executor import load_nodes, problems

    graph = json.loads((ROOT / "workflows" / "api" / "animatediff_text_to_video.json").read_text())
    assert any("note" in node["_meta"] for node in graph.values()) and all(node["_meta"]["title"] for node in graph.values())
    graph["1"]["inputs"]["ckpt_name"] = "not_there.safetensors"  # other tests may have made files of the shipped names
    graph["2"]["inputs"]["motion_module"] = "not_there.ckpt"
    asyncio.run(load_nodes())
    _, error, _, node_errors = asyncio.run(execution.validate_prompt("id", graph, None))
    said = problems(graph, error, node_errors)
    places = {sentence.partition(":")[0] for sentence in said}
    checkpoint, module = (
        "node 1 (CheckpointLoaderSimple), input ckpt_name",
        "node 2 (LongTakeLoadMotionModule), input motion_module",
    )
    assert places - {module} == {checkpoint}, "0.3.64 does not check the menus of V3 nodes, newer ones do"


def test_booting_another_checkout_in_the_same_process_is_refused(tmp_path, comfyui):
    from pack.host.comfyui.boot import boot

    boot(comfyui)
    with pytest.raises(ValueError, match="start a new process"):
        boot(tmp_path)
