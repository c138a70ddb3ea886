"""Training inside ComfyUI: through frozen layers under inference mode, what stays as it was, what comes out and who reads it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from clip_files import caption, grey_frames, write_animation
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.train.denoising import Batch
from pack.modules.train.start_module import built, new_module
from pack.modules.train.tasks import TRAINABLES
from pack.nodes.train.train_motion import LongTakeTrainMotion
from safetensors.torch import load_file
from tiny_motion import SDXL_UNET, image_model, ksample, motion_file, randomized, text
from tiny_trainables import (
    FRAMES,
    QUICK,
    Squares,
    Words,
    cancelled,
    folders_in,
    loaded_model,
    logged,
    same,
    shapes_of,
    small_graph,
    small_sdxl,
    unloading,
    written,
)

pytestmark = pytest.mark.comfy
SIZE = 32


@pytest.fixture(scope="module")
def clips():
    return shapes_of(SIZE)


@pytest.fixture(scope="module")
def model(comfyui):
    return loaded_model()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of this test alone."""
    for kind in ("motion_modules", "motion_loras", "loras"):
        (tmp_path / kind).mkdir()
    return folders_in(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def module(tmp_path_factory, comfyui):
    with torch.inference_mode():
        return load_motion_module(motion_file(tmp_path_factory.mktemp("module")))


def teach(model, clips, **inputs):
    """The node, as the executor runs it."""
    values = {
        "vae": Squares(),
        "conditioning": text(),
        "clip": Words(),
        "steps": 2,
        "learning_rate": 1e-2,
        "rank": 4,
        "options": QUICK,
    }
    with torch.inference_mode():
        return LongTakeTrainMotion.execute(model=model, clips=clips, **values | inputs).args


def state_of(model):
    return {key: value.clone() for key, value in model.model.state_dict().items()}


FOLDERS = {what: row.folder for what, row in TRAINABLES.items() if row.in_motion}


@pytest.mark.parametrize("what", FOLDERS)
def test_each_kind_trains_and_the_model_stays_bit_for_bit(model, module, clips, places, what):
    import comfy.model_management

    comfy.model_management.unload_all_models()  # an earlier sampling leaves its noise schedule until then
    before = state_of(model)
    trained, name, plot, sample, _, report = teach(
        model, clips, what=what, motion_module=module if TRAINABLES[what].beside_module else None
    )
    assert same(before, state_of(model)), "weights and noise schedule"
    assert not any("forward" in vars(part) or getattr(part, "weight_function", None) for part in model.model.modules())
    assert not any(parameter.grad is not None for parameter in model.model.parameters())
    assert name == "my_motion.safetensors" and (places / FOLDERS[what] / name).is_file()
    assert sample.shape == (FRAMES, SIZE, SIZE, 3) and plot.shape[0] == 1 and "2 steps of 2 clips" in report
    with torch.inference_mode():
        plain = host.apply_motion(model, module) if TRAINABLES[what].beside_module else model
    moved = ksample(trained, frames=FRAMES, size=4)
    assert torch.isfinite(moved).all() and not torch.allclose(moved, ksample(plain, frames=FRAMES, size=4), atol=1e-4)


@pytest.mark.parametrize("recompute", [True, False])
def test_gradients_are_those_of_finite_differences(model, recompute):
    """Through frozen layers below and above every module, whose weights were made in inference mode."""
    start = new_module(model.model.diffusion_model, 0, FRAMES)
    motion = randomized(built(start, torch.device("cpu")), 5).requires_grad_(True)
    g = torch.Generator().manual_seed(1)
    x, aim = torch.randn(2, FRAMES, 4, 4, 4, generator=g), torch.randn(2, FRAMES, 4, 4, 4, generator=g)
    sigma = torch.rand(2, FRAMES, generator=g) + 0.5
    batch = Batch(x, context=text()[0][0].expand(2, -1, -1))
    with torch.inference_mode(), host.trainable(model, "linear", gradient_checkpointing=recompute) as base:
        network = base.network([motion])

        def loss():
            return (network(x, sigma, batch) * aim).double().mean()

        loss().backward()
        directions = {name: torch.randn(p.shape, generator=g) for name, p in motion.named_parameters()}
        slope = sum((p.grad.double() * directions[name]).sum().item() for name, p in motion.named_parameters())

        def at(h):
            with torch.no_grad():
                for name, parameter in motion.named_parameters():
                    parameter.add_(directions[name], alpha=h)
                value = loss().item()
                for name, parameter in motion.named_parameters():
                    parameter.sub_(directions[name], alpha=h)
                return value

        def rise(h):
            return (at(h) - at(-h)) / (2 * h)

        assert slope == pytest.approx((4 * rise(2e-4) - rise(4e-4)) / 3, rel=1e-2)
        assert all(parameter.grad.abs().max() > 0 for parameter in motion.parameters())


def weights(places, name="my_motion"):
    return load_file(places / "motion_loras" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def unbroken(model, module, clips, tmp_path_factory):
    """The weights that four steps give."""
    train = partial(teach, model, clips, what="motion_lora", motion_module=module, steps=4)
    return written(tmp_path_factory.mktemp("unbroken"), train)


def test_a_cancelled_training_goes_on_to_the_same_weights(model, module, clips, places, unbroken, monkeypatch):
    before, train = state_of(model), partial(teach, model, clips, what="motion_lora", motion_module=module, steps=4)
    cancelled(monkeypatch, train, 4, 2)
    assert same(before, state_of(model)) and not any("forward" in vars(part) for part in model.model.modules())
    assert not (places / "motion_loras" / "my_motion.safetensors").exists()
    assert "4 steps" in train()[-1] and same(weights(places), unbroken)
    assert [line["step"] for line in logged(places, "my_motion")] == [1, 2, 3, 4]


def test_comfyui_may_unload_the_model_meanwhile(model, module, clips, places, unbroken, monkeypatch):
    before = state_of(model)
    unloading(monkeypatch, partial(teach, model, clips, what="motion_lora", motion_module=module, steps=4), 4)
    assert same(weights(places), unbroken) and same(before, state_of(model))


def test_a_lora_in_the_model_is_part_of_it_and_stays_in_it(model, module, clips, places, unbroken):
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.randn(32, 32, generator=torch.Generator().manual_seed(0)),))}, 1.0)
    frames = ksample(patched, frames=FRAMES, size=4)
    teach(patched, clips, what="motion_lora", motion_module=module, steps=4)
    assert not same(weights(places), unbroken)
    assert torch.equal(ksample(patched, frames=FRAMES, size=4), frames)


def test_an_adapter_is_read_by_comfyuis_own_loader(model, clips, places):
    import comfy.sd
    import comfy.utils

    trained, name, *_ = teach(model, clips, what="domain_adapter", steps=4)
    lora = comfy.utils.load_torch_file(str(places / "loras" / name), safe_load=True)
    theirs, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    frames = ksample(theirs, frames=FRAMES, size=4)
    torch.testing.assert_close(frames, ksample(trained, frames=FRAMES, size=4), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(frames, ksample(model, frames=FRAMES, size=4), atol=1e-4)


def test_diffusers_opens_a_module(model, clips, places):
    diffusers = pytest.importorskip("diffusers")
    from dataclasses import replace

    _, name, *_ = teach(model, clips, what="motion_module", options=replace(QUICK, file_format="diffusers"))
    folder = (places / "motion_modules" / name).parent
    adapter = diffusers.MotionAdapter.from_pretrained(folder)
    ours = load_motion_module(places / "motion_modules" / name)
    theirs = adapter.down_blocks[0].motion_modules[1].transformer_blocks[0].attn1.to_k.weight
    key = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_k.weight"
    assert torch.equal(theirs, ours.state[key])


@pytest.mark.parametrize("sigma_reparam", [False, True])
def test_a_file_trains_on_from_where_it_was(model, module, clips, places, sigma_reparam):
    """A rate of next to nothing leaves the weights of the module that training starts from, and its kind."""
    options = replace(QUICK, sigma_reparam=sigma_reparam)
    inputs = {"what": "motion_module", "motion_module": module, "steps": 1, "learning_rate": 1e-8, "options": options}
    _, name, *_ = teach(model, clips, **inputs)
    again = load_motion_module(places / "motion_modules" / name)
    assert again.family == module.family and again.max_frames == module.max_frames
    assert all(torch.allclose(value, module.state[key], atol=1e-5) for key, value in again.state.items())


def test_captions_go_through_the_clip_once(model, clips, places):
    words = Words()
    teach(model, clips, what="domain_adapter", clip=words, conditioning=None)
    assert sorted(words.asked) == sorted([*set(clips.captions), ""])
    teach(model, clips, what="domain_adapter", clip=words, conditioning=None, name="again")
    assert len(words.asked) == len(clips.captions) + 1, "kept on disk"


@pytest.mark.parametrize("captioned", [True, False])
def test_one_text_stands_for_all_captions_and_no_text_is_what_the_clip_says(model, clips, places, captioned):
    """As sampling has it, whether the clips have captions or not; before, zeros stood for both."""
    said, words = text(), Words()
    encode = host.text_encoder(model, words, said).encode
    assert torch.equal(encode("a disk" if captioned else "")["context"], said[0][0][0])
    assert torch.equal(encode(None)["context"], Words().encode_from_tokens("")[0][0]) and words.asked == [""]
    plain = replace(QUICK, dropout=0.0)
    assert "2 steps" in teach(model, clips, what="domain_adapter", clip=None, options=plain)[-1]


def test_sdxl_gets_its_sizes_and_pooled_text(clips, places, comfyui):
    pooled = 16
    model = small_sdxl(pooled)
    trained, name, *_ = teach(model, clips, what="motion_module", clip=Words(pooled=pooled), conditioning=None, steps=1)
    read = load_motion_module(places / "motion_modules" / name)
    assert (read.family, read.noise_schedule, read.module_norms) == ("SDXL-beta", "animatediff_sdxl", True)
    assert float(trained.get_model_object("model_sampling").sigma_max) == pytest.approx(65.93, abs=0.01)
    with pytest.raises(ValueError, match="cannot be made: connect the CLIP of the same checkpoint"):
        teach(model, clips, what="motion_module", clip=Words(pooled=pooled + 1), conditioning=None, name="other")


def test_a_video_model_of_this_pack_is_one_too(clips, places, comfyui):
    from tiny import info, video_model

    about = info(size=(SIZE, SIZE))
    video = host.video_model(video_model(size=(SIZE, SIZE), labels=("disk", "square", "triangle", "ring")))
    before = state_of(video)
    said = {"conditioning": None, "vae": host.vae(about)}
    _, name, *_ = teach(video, shapes_of(SIZE), what="motion_lora", **said)
    assert same(before, state_of(video)) and len(load_file(places / "motion_loras" / name)) == 8 * len(about.slots)
    with pytest.raises(ValueError, match="has a motion module already"):
        teach(video, shapes_of(SIZE), what="motion_module", **said)


BAD = {
    "no text": ({"conditioning": None, "clip": None}, "connect the checkpoint's CLIP"),
    "nothing for no text": ({"clip": None}, "connect the checkpoint's CLIP as well"),
    "no VAE": ({"vae": None}, "None was given for a VAE"),
    "another CLIP": ({"clip": Words(8), "conditioning": None}, "8 numbers per token and the model takes 16"),
    "no motion module": ({"what": "motion_lora"}, "connect Load Motion Module"),
    "a name that is a path": ({"name": "../x"}, "cannot be a file name"),
    "no learning rate": ({"learning_rate": 0.0}, "learning_rate is 0: it must"),
    "rank": ({"rank": 999, "what": "domain_adapter"}, "rank is 999"),
    "two conditions": ({"conditioning": [*text(), *text()]}, "holds 2 conditions"),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_the_first_step(model, clips, places, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        teach(model, clips, **{"what": "motion_module", **inputs})
    assert not list(places.glob("motion_modules/*")) and not list(places.glob("output/longtake_training/*.run.*"))


def test_models_and_clips_that_do_not_fit(model, module, clips, places):
    wide = loaded_model(config=SDXL_UNET)
    with pytest.raises(ValueError, match="the model is a U-Net with levels of 32, 64, 128"):
        teach(wide, clips, what="motion_lora", motion_module=module)
    with pytest.raises(ValueError, match="single frames"):
        teach(model, shapes_of(SIZE, 1), what="motion_module")
    with pytest.raises(ValueError, match="40 frames and module.safetensors knows times for 32"):
        teach(model, shapes_of(16, 40), what="motion_lora", motion_module=module)
    teach(model, clips, what="motion_lora", motion_module=module)
    with pytest.raises(ValueError, match=r"belongs to another run \(.*rank.* differ"):
        teach(model, clips, what="motion_lora", motion_module=module, rank=8)
    assert "2 steps" in teach(model, clips, what="motion_lora", motion_module=module, rank=8, restart=True)[-1]


class SmallTrainingCheckpoint:
    """In the place of CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        return image_model(), Words(), Squares()


@pytest.mark.parametrize("name", ["train_motion_module", "train_motion_lora"])
def test_the_workflows_run_from_the_queue(name, places, monkeypatch):
    import folder_paths
    import nodes
    from pack.host.comfyui.executor import run_workflow

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SmallTrainingCheckpoint", SmallTrainingCheckpoint)
    sizes = {"width": SIZE, "height": SIZE, "size": SIZE, "frames": FRAMES, "rank": 4}
    graph, made = small_graph(name, {"CheckpointLoaderSimple": "SmallTrainingCheckpoint"}, **sizes), []
    for node in graph.values():
        if node["class_type"] == "LongTakeLoadMotionModule":
            folder = Path(folder_paths.models_dir) / "animatediff_models"
            folder.mkdir(parents=True, exist_ok=True)
            made.append(motion_file(folder, name="small.safetensors"))
            node["inputs"]["motion_module"] = "small.safetensors"
        if node["class_type"] == "LongTakeClipFolder":
            clip = write_animation(places / "clips" / "one.gif", grey_frames(4 * FRAMES, SIZE, SIZE))
            caption(clip, "a grey thing")
            node["inputs"]["path"] = str(places / "clips")
    try:
        results = run_workflow(graph, places / "saved")
    finally:
        for path in made:
            path.unlink()
    (said,) = [item["text"] for item in results if item["class_type"] == "LongTakeTrainMotion" and item["kind"] == "text"]
    assert "2 steps of" in said
    files = [path for folder in set(FOLDERS.values()) for path in (Path(folder_paths.models_dir)).rglob("my_*.safetensors")]
    assert files or list(places.rglob("my_*.safetensors"))
    assert any(item["class_type"] in ("SaveAnimatedWEBP", "SaveVideo") for item in results)
    for path in set(files):
        path.unlink()
