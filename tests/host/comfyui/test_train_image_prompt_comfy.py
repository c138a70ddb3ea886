"""Train Image Prompt inside ComfyUI: each kind, the model stays, what comes out looks at pictures there as it did in training."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pack import host
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.control.prompt_settings import PromptSettings
from pack.modules.train.denoising import Batch
from pack.modules.train.options import Options
from pack.modules.train.tasks.image_prompt import SEEN, beside_text, new_image_prompt
from pack.nodes.train.train_image_prompt import LongTakeTrainImagePrompt
from safetensors.torch import load_file
from sparing import sparing
from tiny import info, video_model
from tiny_motion import SDXL_UNET, image_model, ksample, motion_file, randomized, text
from tiny_prompt import CLIP, SmallVision, pictures
from tiny_trainables import (
    FRAMES,
    QUICK,
    Squares,
    Words,
    cancelled,
    folders_in,
    loaded_model,
    logged,
    parts_state,
    same,
    shapes_of,
    small_graph,
    small_sdxl,
    unloading,
    written,
)
from whole_windows import guess

pytestmark = pytest.mark.comfy
SIZE = 32


@pytest.fixture(scope="module")
def model(comfyui):
    return loaded_model()


@pytest.fixture(scope="module")
def clips():
    return shapes_of(SIZE)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of this test alone."""
    return folders_in(monkeypatch, tmp_path)


def teach(model, clips, **inputs):
    """The node, as the executor runs it."""
    values = {
        "vae": Squares(),
        "clip_vision": SmallVision(),
        "conditioning": text(),
        "clip": Words(),
        "steps": 2,
        "learning_rate": 1e-2,
    }
    with torch.inference_mode():
        return LongTakeTrainImagePrompt.execute(model=model, clips=clips, **{"options": QUICK, **values, **inputs}).args


def state_of(model):
    return parts_state(model.model.diffusion_model, *host.motion_models(model))


def looking(model, prompt, images):
    return host.apply_image_prompt(model, prompt, PromptSettings(), SmallVision(), images)


@pytest.mark.parametrize("kind", sparing(["plain", "plus", "full"], "plus"))
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_each_kind_trains_and_the_model_stays_bit_for_bit(model, places, kind, frames):
    before, plain = state_of(model), ksample(model, frames=2, size=4)
    prompt, name, plot, sample, _, report = teach(model, shapes_of(SIZE, frames), kind=kind, tokens=5)
    assert same(before, state_of(model)) and torch.equal(plain, ksample(model, frames=2, size=4))
    assert not any("forward" in vars(part) for part in model.model.modules())
    assert plot.shape[0] == 1 and "image prompt: my_image_prompt.safetensors\n2 steps of 2 clips" in report
    assert sample.shape == (frames, SIZE, SIZE, 3)
    read = load_image_prompt(places / "image_prompts" / name)
    assert same(dict(read.state), dict(prompt.state)) and read.shape.kind == kind and read.shape.clip == CLIP
    one, other = (ksample(looking(model, read, images), frames=2, size=4) for images in pictures(2).split(1))
    assert torch.isfinite(one).all() and not torch.allclose(one, plain, atol=1e-4) and not torch.allclose(one, other, atol=1e-5)


def test_sdxl_learns_to_look_with_its_sizes_and_pooled_text(clips, places, comfyui):
    model = small_sdxl(16)
    before = state_of(model)
    prompt, name, _, sample, _, _ = teach(model, clips, clip=Words(pooled=16), conditioning=None)
    assert same(before, state_of(model)) and torch.isfinite(sample).all()
    read = load_image_prompt(places / "image_prompts" / name)
    fresh = new_image_prompt(host.unet_of(model), CLIP).state_dict()
    assert read.shape == prompt.shape and read.state.keys() == fresh.keys()
    assert any(not torch.equal(value, fresh[key]) for key, value in read.state.items())
    with torch.inference_mode():
        looking(model, read, pictures(1))
        with pytest.raises(ValueError, match="load an image prompt of the model.s base"):
            looking(loaded_model(), read, pictures(1))


def test_it_looks_at_pictures_when_applied_as_it_did_in_training(model, clips, places):
    _, name, *_ = teach(model, clips, steps=3)
    prompt = load_image_prompt(places / "image_prompts" / name)
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    image = pictures(1)
    with torch.inference_mode():
        applied = guess(looking(model, prompt, image), x, torch.tensor(3.0), text(3), text(4), cfg=1.0)
    with torch.inference_mode(), host.trainable(model) as base, torch.no_grad():
        network, _ = beside_text(base.network([]), base.unet, prompt.build())
        seen = SmallVision().encode_image(image).image_embeds.clone()
        batch = Batch(x[None], context=text(3)[0][0], extra={SEEN: seen})
        expected = base.to_vae(network(x[None], torch.full((1, 2), 3.0), batch)[0])
    torch.testing.assert_close(applied, expected, rtol=1e-3, atol=1e-3)


def test_what_a_picture_says_is_learnt(model, places):
    """Pictures of one colour each: the file tells one's from another's."""
    options = Options(batch=3, micro_batch=0, warmup=1, ema=0.0, decay="constant", sample_steps=1, sample_cfg=1.0, dropout=0.0)
    clips = shapes_of(SIZE, 1)
    _, name, *_ = teach(model, clips, steps=60, options=options)
    prompt = load_image_prompt(places / "image_prompts" / name)
    latents = torch.stack([Squares().encode((clips.clip(number).pixels.movedim(1, -1) + 1) / 2) for number in range(3)])
    shown = torch.cat([(clips.clip(number).pixels.movedim(1, -1) + 1) / 2 for number in range(3)])
    errors = []
    with torch.inference_mode(), host.trainable(model) as base, torch.no_grad():
        clean = base.to_model(latents.flatten(0, 1)).unflatten(0, (3, 1))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        for order in ([0, 1, 2], [1, 2, 0], None):
            network = base.network([])
            if order is not None:
                network, _ = beside_text(network, base.unet, prompt.build())
            seen = SmallVision().encode_image(shown[order or [0, 1, 2]]).image_embeds.clone()
            batch = Batch(clean, context=text()[0][0].expand(3, -1, -1), extra={SEEN: seen})
            made = network(clean + 3 * noise, torch.full((3, 1), 3.0), batch)
            errors.append((made - clean).square().mean().item())
    own, others, none = errors
    assert own < 0.9 * none and own < others


@pytest.mark.parametrize("moves", sparing([False, True], True))
def test_computing_again_gives_the_same_gradients(moves, tmp_path, comfyui):
    with torch.inference_mode():
        model = image_model()
        model = host.apply_motion(model, load_motion_module(motion_file(tmp_path))) if moves else model
    g = torch.Generator().manual_seed(1)
    x, aim = torch.randn(2, FRAMES, 4, 4, 4, generator=g), torch.randn(2, FRAMES, 4, 4, 4, generator=g)
    batch = Batch(x, context=text()[0][0].expand(2, -1, -1), extra={SEEN: torch.randn(2, CLIP, generator=g)})
    found = []
    for recompute in (False, True):
        with torch.inference_mode(), host.trainable(model, gradient_checkpointing=recompute) as base:
            prompt = randomized(new_image_prompt(base.unet, CLIP), 5)
            network, gaze = beside_text(base.network(base.motions), base.unet, prompt)
            base.holders.append(gaze)
            (network(x, torch.full((2, FRAMES), 2.0), batch) * aim).sum().backward()
            found.append({name: parameter.grad for name, parameter in prompt.named_parameters()})
    assert all(gradient.abs().max() > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def unbroken(model, clips, tmp_path_factory):
    """The weights that four steps give."""
    return written(tmp_path_factory.mktemp("unbroken"), partial(teach, model, clips, steps=4))


def test_a_cancelled_training_goes_on_to_the_same_weights(model, clips, places, unbroken, monkeypatch):
    before, train = state_of(model), partial(teach, model, clips, steps=4)
    cancelled(monkeypatch, train, 4, 2)
    assert same(before, state_of(model)) and not any("forward" in vars(part) for part in model.model.modules())
    assert len(logged(places, "my_image_prompt")) == 2, "cancelled within a step"
    train()
    assert same(load_file(places / "image_prompts" / "my_image_prompt.safetensors"), unbroken)


def test_comfyui_may_unload_the_model_meanwhile(model, clips, places, unbroken, monkeypatch):
    unloading(monkeypatch, partial(teach, model, clips, steps=4), 4)
    assert same(load_file(places / "image_prompts" / "my_image_prompt.safetensors"), unbroken)


def test_with_a_motion_module_it_learns_while_it_moves(places, clips, tmp_path, comfyui):
    with torch.inference_mode():
        moving = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    before = state_of(moving)
    prompt, *_ = teach(moving, clips)
    assert same(before, state_of(moving))
    still, *_ = teach(image_model(), clips, name="still")
    assert not same(dict(prompt.state), dict(still.state))


def test_samples_with_guidance_show_no_picture_to_the_negative(model, clips, places):
    options = replace(QUICK, sample_steps=2, sample_cfg=3.0, sample_prompt="something")
    *_, sample, _, _ = teach(model, clips, options=options)
    assert torch.isfinite(sample).all()


class Hollow:
    """A CLIP vision model that gives nothing."""

    def encode_image(self, images, crop=True):
        return object()


BAD = {
    "no text": ({"conditioning": None, "clip": None}, "connect the checkpoint's CLIP"),
    "nothing for no text": ({"clip": None}, "connect the checkpoint's CLIP as well"),
    "no VAE": ({"vae": None}, "None was given for a VAE"),
    "no CLIP vision": ({"clip_vision": None}, "None was given for a CLIP vision model: connect Load CLIP Vision"),
    "another encoder": ({"clip_vision": Hollow()}, "has no image_embeds, which a plain image prompt looks at"),
    "a name that is a path": ({"name": "../x"}, "cannot be a file name"),
    "no learning rate": ({"learning_rate": 0.0}, "learning_rate is 0: it must"),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_the_first_step(model, clips, places, inputs, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        teach(model, clips, **inputs)
    assert "\n" not in str(caught.value) and not list(places.rglob("*.run.safetensors"))


def test_models_and_runs_that_do_not_fit(model, clips, places):
    about = info(size=(SIZE, SIZE))
    with pytest.raises(ValueError, match="no attention to the text"):
        teach(host.video_model(video_model(size=(SIZE, SIZE))), clips, vae=host.vae(about))
    teach(model, clips)
    for change in ({"kind": "full"}, {"tokens": 5}, {"seed": 1}):
        with pytest.raises(ValueError, match="belongs to another run"):
            teach(model, clips, **change)
    assert "3 steps" in teach(model, clips, steps=3, restart=True)[-1]
    prompt, *_ = teach(model, clips, name="small")
    with torch.inference_mode():
        wide = image_model(config=SDXL_UNET)
    with pytest.raises(ValueError, match=r"is for .* and the model is"):
        looking(wide, prompt, pictures(1))


class SmallCheckpoint:
    """In the place of CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        return image_model(), Words(), Squares()


class SmallEncoder:
    """In the place of CLIPVisionLoader."""

    RETURN_TYPES, FUNCTION = ("CLIP_VISION",), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"clip_name": ("STRING", {})}})

    def load(self, clip_name):
        return (SmallVision(),)


def test_the_workflow_runs_from_the_queue(places, monkeypatch):
    import folder_paths
    import nodes
    from pack.host.comfyui.executor import run_workflow

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SmallCheckpoint", SmallCheckpoint)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SmallEncoder", SmallEncoder)
    instead = {"CheckpointLoaderSimple": "SmallCheckpoint", "CLIPVisionLoader": "SmallEncoder"}
    graph = small_graph("train_image_prompt", instead, size=SIZE)
    try:
        results = run_workflow(graph, places / "saved")
    finally:
        for path in Path(folder_paths.models_dir).rglob("my_image_prompt*"):
            path.unlink()
    (said,) = [item["text"] for item in results if item["class_type"] == "LongTakeTrainImagePrompt" and item["kind"] == "text"]
    assert "2 steps of" in said and sum(item["class_type"] == "PreviewImage" for item in results) >= 2
