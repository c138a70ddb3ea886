"""Train Sparse Control inside ComfyUI: through frozen layers under inference mode, what comes out, and that it leads there."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.checkpoints.sparsectrl import OWN, load_sparse_control
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.sparse_pictures import SparseSettings
from pack.modules.data.captions import NOT_NEEDED
from pack.modules.data.clips import ClipDataset
from pack.modules.data.settings import ClipSettings
from pack.modules.data.source import from_images
from pack.modules.nets.unet import UNet
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.temporal.windows import WindowPlan
from pack.modules.train.denoising import Batch
from pack.modules.train.native import native_network
from pack.modules.train.tasks.sparse_control import image_config, led_at, new_encoder, residuals_of
from pack.nodes.train.train_sparse import LongTakeTrainSparseControl
from safetensors.torch import load_file
from sparing import sparing
from tiny import info, video_model
from tiny_motion import image_model, ksample, motion_file, randomized, text
from tiny_sparse import HEADS
from tiny_trainables import (
    FRAMES,
    QUICK,
    Squares,
    Words,
    cancelled,
    folders_in,
    logged,
    parts_state,
    same,
    shapes_of,
    small_graph,
    unloading,
    written,
)
from whole_windows import guess, whole

pytestmark = pytest.mark.comfy
SIZE = 32


class SizedSquares(Squares):
    """Says how many pixels are one latent."""

    def spacial_compression_encode(self):
        return self.patch


def moving(folder, seed=0):
    """As ComfyUI's loaders and Apply Motion Module make it."""
    with torch.inference_mode():
        return host.apply_motion(image_model(seed, config=HEADS), load_motion_module(motion_file(folder)))


@pytest.fixture(scope="module")
def model(tmp_path_factory, comfyui):
    return moving(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="module")
def clips():
    return shapes_of(SIZE)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of this test alone."""
    return folders_in(monkeypatch, tmp_path)


def state_of(model):
    """U-Net and motion modules."""
    return parts_state(model.model.diffusion_model, *host.motion_models(model))


def teach(model, clips, **inputs):
    """The node, as the executor runs it."""
    values = {"vae": SizedSquares(), "conditioning": text(), "clip": Words(), "steps": 2, "learning_rate": 1e-2, "options": QUICK}
    with torch.inference_mode():
        return LongTakeTrainSparseControl.execute(model=model, clips=clips, **values | inputs).args


def keyframes(*frames, size=SIZE, seed=3):
    images = torch.rand(len(frames), size, size, 3, generator=torch.Generator().manual_seed(seed))
    return Keyframes(images, frames, (1.0,) * len(frames), (0,) * len(frames)).at(FRAMES)


def frames_of(model, control=None, vae=None, keyed=(0, -1)):
    """What KSampler makes, led or not."""
    conds = (text(3), text(4))
    if control is not None:
        conds = host.apply_sparse_control(*conds, control, SparseSettings(keyframes(*keyed)), vae or SizedSquares())
    return ksample(model, frames=FRAMES, size=4, positive=conds[0], negative=conds[1])


def filmed(clips, change=lambda pictures: pictures):
    """The same clips as videos that can be cut in one way, so that others can be cut alike."""
    settings = ClipSettings(frames=FRAMES, stride=1, width=SIZE, height=SIZE, variants=1, missing_captions=NOT_NEEDED)
    pictures = [change((clips.clip(number).pixels.movedim(1, -1) + 1) / 2) for number in range(len(clips))]
    first, *others = (from_images(frames, "", 8.0, f"{number}") for number, frames in enumerate(pictures))
    made = ClipDataset(first, settings)
    for found in others:
        made = made.with_more(found)
    return made


@pytest.mark.parametrize("pictures", sparing(["rgb", "scribble", "depth"], "scribble"))
def test_each_kind_trains_and_the_model_stays_bit_for_bit(model, places, pictures):
    clips = filmed(shapes_of(SIZE))
    before, plain = state_of(model), frames_of(model)
    more = {"condition_clips": filmed(clips, lambda pictures: 1 - pictures)} if pictures == "depth" else {}
    control, name, plot, sample, _, report = teach(model, clips, pictures=pictures, **more)
    assert same(before, state_of(model)) and torch.equal(plain, frames_of(model))
    assert plot.shape[0] == 1 and "2 steps of 2 clips" in report and sample.shape == (FRAMES, SIZE, SIZE, 3)
    read = load_sparse_control(places / "controlnets" / name)
    assert (read.layout, read.pictures, read.max_frames) == ("AnimateDiff", pictures, 32)
    led = frames_of(model, control)
    assert torch.isfinite(led).all() and not torch.allclose(led, plain, atol=1e-4)
    assert not torch.allclose(led, frames_of(model, control, keyed=(0,)), atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_packs_own_network(model, recompute):
    """The same weights in this pack's U-Net, led by the same encoder: ComfyUI adds what a control gives in place."""
    native = UNet(HEADS).requires_grad_(False).eval()
    native.load_state_dict({key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()})
    g = torch.Generator().manual_seed(1)
    x, aim = torch.randn(2, FRAMES, 4, 4, 4, generator=g), torch.randn(2, FRAMES, 4, 4, 4, generator=g)
    sigma = torch.rand(2, FRAMES, generator=g) + 0.5
    batch = led_at(Batch(torch.randn(2, FRAMES, 4, 4, 4, generator=g), context=text()[0][0].expand(2, -1, -1)), (0, -1))
    found = []
    with torch.inference_mode(), host.trainable(model, gradient_checkpointing=recompute) as base:
        control = randomized(new_encoder(image_config(base.unet), base.unet, base.motions[-1], 0), 5)
        about = info(unet=HEADS, temporal=base.motions[-1].config, labels=(), patch=0, prediction="eps")
        for own in (False, True):
            again = recompute and not own
            added = residuals_of(control, base.schedule, gradient_checkpointing=again)
            if own:
                schedule = base.schedule
                network = native_network(replace(about, noise_schedule=named(schedule)), native, base.motions, added=added)
            else:
                network = base.network(base.motions, added=added)
            control.zero_grad()
            made = network(x, sigma, batch)
            (made * aim).sum().backward()
            found.append((made.detach(), {name: parameter.grad.clone() for name, parameter in control.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert all(gradient.abs().max() > 0 for name, gradient in found[0][1].items() if not name.startswith("input_blocks.0"))
    rounding = 1e-4 * torch.cat([gradient.flatten() for gradient in found[1][1].values()]).norm()  # all there is before norms
    for name, gradient in found[0][1].items():
        expected = found[1][1][name]
        assert (gradient - expected).norm() <= 1e-2 * expected.norm() + rounding, name


def named(schedule):
    """The name of a noise schedule."""
    from pack.modules.noise.levels import NOISE_SCHEDULES

    return next(name for name in NOISE_SCHEDULES if torch.allclose(NoiseSchedule.named(name).sigmas, schedule.sigmas, rtol=1e-3))


def test_it_begins_as_a_copy_of_the_checkpoint(model):
    with torch.inference_mode(), host.trainable(model) as base:
        control = new_encoder(image_config(base.unet), base.unet, base.motions[-1], 0)
        state = base.unet.state_dict()
        for key in ("input_blocks.1.0.in_layers.2.weight", "middle_block.1.transformer_blocks.0.attn2.to_k.weight"):
            assert torch.equal(control.state_dict()[key], state[key])
        assert not control.middle_block_out.weight.any()


@pytest.fixture(scope="module")
def unbroken(model, clips, tmp_path_factory):
    """The weights that four steps give."""
    return written(tmp_path_factory.mktemp("unbroken"), partial(teach, model, clips, steps=4))


def test_a_cancelled_training_goes_on_to_the_same_weights(model, clips, places, unbroken, monkeypatch):
    before, train = state_of(model), partial(teach, model, clips, steps=4)
    cancelled(monkeypatch, train, 4, 2)
    assert same(before, state_of(model)) and not (places / "controlnets" / "my_sparse_control.safetensors").exists()
    assert len(logged(places, "my_sparse_control")) == 2, "cancelled within a step"
    train()
    assert same(load_file(places / "controlnets" / "my_sparse_control.safetensors"), unbroken)


def test_comfyui_may_unload_the_model_meanwhile(model, clips, places, unbroken, monkeypatch):
    unloading(monkeypatch, partial(teach, model, clips, steps=4), 4)
    assert same(load_file(places / "controlnets" / "my_sparse_control.safetensors"), unbroken)


def test_a_video_model_is_led_as_it_was_trained(places, comfyui):
    """Trained here, applied here: the guess is that of the pack's own network with the same encoder."""
    labels = ("disk", "square", "triangle", "ring")
    about = info(size=(SIZE, SIZE), labels=labels, frames=FRAMES)
    made = video_model(size=(SIZE, SIZE), labels=labels, frames=FRAMES)
    video, vae = host.video_model(made), host.vae(about)
    before = state_of(video)
    control, name, *_ = teach(video, shapes_of(SIZE), vae=vae, conditioning=None)
    read = load_sparse_control(places / "controlnets" / name)
    assert same(before, state_of(video)) and (read.layout, read.config.condition) == (OWN, 48)
    side, shown = SIZE // 4, keyframes(0, -1)
    label = [[torch.zeros(1, 1, 1), {"pooled_output": torch.tensor([[1.0, 0, 0, 0]])}]]
    conds = host.apply_sparse_control(label, label, control, SparseSettings(shown), vae)
    x = torch.randn(FRAMES, 48, side, side, generator=torch.Generator().manual_seed(0)) * 3
    with torch.inference_mode():
        got, plain = (guess(video, x, torch.tensor(3.0), *pair) for pair in (conds, (label, label)))
    unet, motion = made.build()
    latents = torch.zeros(1, FRAMES, 48, side, side)
    latents[0, [0, -1]] = vae.encode(shown.images)
    batch = led_at(Batch(latents, labels=torch.tensor([[1.0, 0, 0, 0]])), (0, -1))
    network = native_network(about, unet, [motion], added=residuals_of(read.build(), NoiseSchedule.named(about.noise_schedule)))
    with torch.no_grad():
        expected = network(x[None], torch.full((1, FRAMES), 3.0), batch)[0]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(got, plain, atol=1e-3)
    other = host.video_model(video_model(size=(SIZE, SIZE), labels=("disk",), unet=replace(about.unet, label_channels=1)))
    with pytest.raises(
        ValueError, match="knows 4 labels and the model has 1: an encoder leads the model that it was trained for"
    ):
        one = [[torch.zeros(1, 1, 1), {"pooled_output": torch.ones(1, 1)}]]
        guess(other, x, torch.tensor(3.0), *host.apply_sparse_control(one, one, control, SparseSettings(shown), vae))


def recorded(control):
    """Every call's frames and residuals, as the control gives them from now on."""
    from pack.host.comfyui.options import frame_numbers

    calls, inner = [], control.get_control

    def get_control(x, t, cond, rows, options):
        made = inner(x, t, cond, rows, options)
        ids = frame_numbers(options, len(x) // rows).tolist()
        calls.append((ids, torch.cat([part.flatten(1) for part in (*made["output"], *made["middle"])], dim=1)))
        return made

    control.get_control = get_control
    return calls


def test_a_video_model_in_windows_is_led_as_without(places, comfyui):
    """Labels of each frame of its own, which the encoder is told as the model is."""
    labels, count = ("disk", "square", "triangle", "ring"), 7
    video = host.video_model(video_model(size=(SIZE, SIZE), labels=labels))
    vae = host.vae(info(size=(SIZE, SIZE), labels=labels))
    control, *_ = teach(video, shapes_of(SIZE), vae=vae, conditioning=None)
    rows = torch.rand(count, len(labels), generator=torch.Generator().manual_seed(3))
    label = [[torch.zeros(1, 1, 1), {"pooled_output": rows}]]
    shown = Keyframes(torch.rand(2, SIZE, SIZE, 3), (0, 6), (1.0, 1.0), (0, 0)).at(count)
    x = torch.randn(count, 48, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(0)) * 3
    found = []
    for windowed in (False, True):
        conds = host.apply_sparse_control(label, label, control, SparseSettings(shown), vae)
        calls = recorded(conds[0][0][1]["control"])
        guess(whole(video, WindowPlan(length=4, overlap=2)) if windowed else video, x, torch.tensor(3.0), *conds)
        found.append({frame: made[ids.index(frame)] for ids, made in calls for frame in ids})
    assert found[0].keys() == found[1].keys() == set(range(count))
    for frame, made in found[0].items():
        torch.testing.assert_close(made, found[1][frame], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0][1], found[0][2], atol=1e-6)


BAD = {
    "no text": ({"conditioning": None, "clip": None}, "connect the checkpoint's CLIP"),
    "nothing for no text": ({"clip": None}, "connect the checkpoint's CLIP as well"),
    "no VAE": ({"vae": None}, "None was given for a VAE"),
    "a name that is a path": ({"name": "../x"}, "cannot be a file name"),
    "no depth maps": ({"pictures": "depth"}, "depth maps are not made here: connect clips of them"),
    "other clips": ({"pictures": "depth", "condition_clips": shapes_of(SIZE, FRAMES + 1)}, "not cut as the 3 clips are"),
    "long clips": ({"clips": shapes_of(16, 40)}, "40 frames and SparseCtrl's temporal modules know times for 32"),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_the_first_step(model, clips, places, inputs, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        teach(**{"model": model, "clips": clips} | inputs)
    assert "\n" not in str(caught.value) and not list(places.rglob("*.run.safetensors"))


def test_models_that_have_no_such_encoders(clips, places, tmp_path):
    with torch.inference_mode():
        still = image_model(config=HEADS)
        four = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    with pytest.raises(ValueError, match="nothing moves in this model: connect it from behind Apply Motion Module"):
        teach(still, clips)
    with pytest.raises(ValueError, match="not built as SD1.5"):
        teach(four, clips)


class SmallMovingCheckpoint:
    """In the place of CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        return image_model(config=HEADS), Words(), SizedSquares()


def test_the_workflow_runs_from_the_queue(places, monkeypatch):
    import folder_paths
    import nodes
    from pack.host.comfyui.executor import run_workflow

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SmallMovingCheckpoint", SmallMovingCheckpoint)
    sizes = {"width": SIZE, "height": SIZE, "size": SIZE, "frames": FRAMES}
    graph = small_graph("train_sparse_control", {"CheckpointLoaderSimple": "SmallMovingCheckpoint"}, **sizes)
    for node in graph.values():
        if node["class_type"] == "LongTakeLoadMotionModule":
            folder = Path(folder_paths.models_dir) / "animatediff_models"
            folder.mkdir(parents=True, exist_ok=True)
            made = motion_file(folder, name="small_for_sparse.safetensors")
            node["inputs"]["motion_module"] = made.name
    try:
        results = run_workflow(graph, places / "saved")
    finally:
        made.unlink()
    (said,) = [item["text"] for item in results if item["class_type"] == "LongTakeTrainSparseControl" and item["kind"] == "text"]
    assert "2 steps of" in said and any(item["class_type"] == "SaveAnimatedWEBP" for item in results)
    for path in Path(folder_paths.models_dir).rglob("my_sparse_control*"):
        path.unlink()
