"""What Train Motion trains, on native models: each kind, its file, going on, watching, samples, and what is refused."""

import json
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.checkpoints.motion_lora import load_motion_lora
from pack.modules.measure.attention import Reading
from pack.modules.train.encoded import conditioned, lengthened
from pack.modules.train.in_base import Setup
from pack.modules.train.options import BasicSettings, Options, usual_precision
from pack.modules.train.start_module import new_module
from pack.modules.train.tasks import TRAINABLES
from pack.modules.train.train_blocks import read_blocks
from pack.nodes.train.data import LongTakeClipsFromImages
from pack.nodes.train.train_in_model import encoded_clips
from pack.nodes.train.train_motion import LongTakeTrainMotion, start_of
from pack.nodes.train.training_options import LongTakeTrainingOptions
from safetensors.torch import load_file
from tiny import info, unet, video_model
from tiny_trainables import FRAMES, QUICK, WORDS, cancelled, folders_in, logged, same, shapes_of
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(
    host.name != "standalone", reason="native models as an image model exist on the standalone host only"
)
SIZE = 16
FOLDERS = {what: row.folder for what, row in TRAINABLES.items() if row.in_motion}


@pytest.fixture(scope="module")
def clips():
    return shapes_of(SIZE)


@pytest.fixture(scope="module")
def video():
    """With a motion model of its own."""
    shape = replace(info().unet, label_channels=len(WORDS))
    return host.video_model(video_model(labels=WORDS, unet=shape))


@pytest.fixture(scope="module")
def still(video):
    """The image model in it."""
    return replace(video, motions=(), settings=())


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of this test alone."""
    for kind in set(FOLDERS.values()):
        (tmp_path / kind).mkdir()
    return folders_in(monkeypatch, tmp_path)


def teach(model, clips, **inputs):
    """The node."""
    values = {"vae": host.vae(info()), "steps": 2, "learning_rate": 1e-2, "rank": 4, "options": QUICK, "what": "motion_module"}
    return LongTakeTrainMotion.execute(model=model, clips=clips, **values | inputs).args


def state_of(model):
    return {key: value.clone() for key, value in model.unet.state_dict().items()}


def look(model, f=FRAMES):
    """What a model makes of some frames."""
    x = torch.randn(f, 48, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((f,), 2.0)
    with torch.no_grad(), model.ready(), model.during(torch.arange(f), sigma):
        return model.unet(x, model.schedule.timestep(sigma), y=torch.zeros(f, len(WORDS)))


@pytest.mark.parametrize("what", FOLDERS)
def test_each_kind_trains_and_the_model_stays_bit_for_bit(video, still, clips, places, what):
    model = video if TRAINABLES[what].beside_module else still
    before, own = state_of(model), [{k: v.clone() for k, v in m.state_dict().items()} for m in model.motions]
    trained, name, plot, sample, log, report = teach(model, clips, what=what)
    assert same(before, state_of(model)) and all(same(was, m.state_dict()) for was, m in zip(own, model.motions, strict=True))
    assert not any("forward" in vars(part) for part in model.unet.modules())
    assert (places / FOLDERS[what] / name).is_file() and plot.shape[0] == 1 and "2 steps of 2 clips" in report
    assert log == "longtake_training/my_motion.jsonl" and (places / "output" / log).is_file()
    assert sample.shape == (FRAMES, SIZE, SIZE, 3) and sample.min() >= 0 and sample.max() <= 1
    assert not torch.allclose(look(trained), look(model), atol=1e-5)


def test_a_new_module_is_nothing_at_first_and_its_file_is_what_was_trained(still, clips, places):
    start = new_module(still.unet, 3, FRAMES)
    assert (start.family, start.noise_schedule, start.max_frames, start.clip_norms) == ("v3", "linear", 32, False)
    assert torch.equal(look(host.apply_motion(still, start, noise_schedule="model")), look(still))
    _, name, *_ = teach(still, clips, learning_rate=1e-8, steps=1, seed=3)
    read = load_motion_module(places / "motion_modules" / name)
    assert read.family == "v3" and all(torch.allclose(value, start.state[key], atol=1e-6) for key, value in read.state.items())


def test_blocks_that_do_not_train_stay(still, clips, places):
    start = new_module(still.unet, 0, FRAMES)
    _, name, *_ = teach(still, clips, options=replace(QUICK, train_blocks="up.1"))
    state = load_motion_module(places / "motion_modules" / name).state
    changed = {key.split(".motion")[0] for key, value in state.items() if not torch.equal(value, start.state[key])}
    assert changed == {"up_blocks.1"}


def test_words_for_blocks():
    assert read_blocks("") == () and read_blocks("down_blocks.2; up") == ("down_blocks.2", "up_blocks")
    for wrong in ("upp", "down.x", "mid.1"):
        with pytest.raises(ValueError, match=f"{wrong!r}, which is no part of a U-Net"):
            read_blocks(wrong)


def test_layouts_and_half_precision(video, still, clips, places):
    plain = teach(still, clips)[1]
    whole = load_motion_module(places / "motion_modules" / plain)
    _, name, *_ = teach(still, clips, name="other", options=replace(QUICK, file_format="diffusers", fp16=True))
    assert name == "other/diffusion_pytorch_model.safetensors"
    config = json.loads((places / "motion_modules" / "other" / "config.json").read_text())
    assert config["_class_name"] == "MotionAdapter" and config["block_out_channels"] == [32, 64]
    half = load_motion_module(places / "motion_modules" / name)
    assert all(torch.equal(value, whole.state[key].half()) for key, value in half.state.items())
    _, name, *_ = teach(video, clips, what="motion_lora", name="lora", options=replace(QUICK, file_format="diffusers"))
    assert all("lora_" in key and key.startswith("unet.") for key in load_file(places / "motion_loras" / name))
    assert len(load_motion_lora(places / "motion_loras" / name).deltas) == 4 * len(video.motions[0].names)


@pytest.mark.parametrize("at", [1, 4])
def test_a_cancelled_training_goes_on_to_the_same_weights(video, clips, places, monkeypatch, at):
    watched = replace(QUICK, watch_every=2, auto_lower_lr=True, save_every=2)
    inputs = {"what": "motion_lora", "steps": 6, "options": watched}
    _, name, *_ = teach(video, clips, name="unbroken", **inputs)
    train = partial(teach, video, clips, name="broken", **inputs)
    cancelled(monkeypatch, train, 6, at)
    assert not any("forward" in vars(part) for part in video.unet.modules())
    _, again, *_ = train()
    folder = places / "motion_loras"
    assert same(load_file(folder / name), load_file(folder / again))
    without_times = [[{**line, "seconds": 0} for line in logged(places, which)] for which in ("unbroken", "broken")]
    assert without_times[0] == without_times[1] and ["attention" in line for line in without_times[0]] == [False, True] * 3
    assert "6 steps" in train()[-1], "a finished one is only written again"


def test_a_reparametrised_module_goes_on_to_the_same_weights_and_its_file_is_plain(still, clips, places, monkeypatch):
    inputs = {"steps": 6, "options": replace(QUICK, sigma_reparam=True, save_every=2)}
    _, name, *_ = teach(still, clips, name="unbroken", **inputs)
    train = partial(teach, still, clips, name="broken", **inputs)
    cancelled(monkeypatch, train, 6, 4)
    _, again, *_ = train()
    one, other = (load_file(places / "motion_modules" / which) for which in (name, again))
    assert same(one, other) and not any("parametrizations" in key for key in one)
    _, usual, *_ = teach(still, clips, name="usual", steps=6)
    assert one.keys() == load_file(places / "motion_modules" / usual).keys()
    with pytest.raises(ValueError, match="sigma_reparam differ"):
        teach(still, clips, name="usual", **inputs)


def test_a_collapse_lowers_the_rate_once(video, clips, places, monkeypatch):
    collapsed = Reading("up.1.0/0", (0.01, 0.02), 80.0)
    monkeypatch.setattr("pack.modules.measure.attention.Watch.readings", lambda self: (collapsed,))
    options = replace(QUICK, watch_every=1, auto_lower_lr=True, decay="constant", warmup=0)
    report = teach(video, clips, what="motion_lora", steps=3, options=options)[-1]
    assert "look at a single frame" in report and "lowered to 0.5 of what was set" in report
    log = (places / "output" / "longtake_training" / "my_motion.jsonl").read_text().splitlines()
    assert [json.loads(line)["lr"] for line in log] == [1e-2, 5e-3, 5e-3]
    assert "nothing to worry" not in report
    plain = teach(video, clips, what="motion_lora", steps=3, name="other", options=replace(options, auto_lower_lr=False))[-1]
    assert "look at a single frame" in plain and "lowered" not in plain


def test_samples_are_written_on_the_way_from_the_same_noise(still, clips, places):
    options = replace(QUICK, sample_every=1, sample_steps=2, sample_cfg=2.0, sample_prompt="a red disk")
    sample = teach(still, clips, steps=3, options=options)[3]
    written = sorted((places / "output" / "longtake_training" / "my_motion.samples").glob("*.webp"))
    assert [path.name for path in written] == [f"step_000000{step}.webp" for step in (1, 2, 3)]
    assert torch.equal(sample, teach(still, clips, steps=3, options=options)[3])
    other = teach(still, clips, steps=3, options=replace(options, sample_prompt="a blue ring turning"))[3]
    assert not torch.equal(sample, other)


def made_in(model, clips, what="motion_module", **changes):
    """(open base, what makes the trainable in it), for a look inside."""
    options = replace(QUICK, **changes)
    settings = options.run(BasicSettings(steps=4, learning_rate=1e-2))
    motion = start_of(what, model, None, clips, 0)
    encoded, facts = encoded_clips(model, clips, host.vae(info()), None, None, options)
    opened = host.trainable(model, options.schedule(motion), gradient_checkpointing=options.gradient_checkpointing)
    return opened, lambda base: TRAINABLES[what].make(Setup(base, encoded, None, options, settings, facts), motion, 4)


@pytest.mark.parametrize("what", ["motion_module", "motion_lora_dual", "domain_adapter"])
def test_computing_again_gives_the_same_gradients(video, still, clips, places, what):
    found = []
    for recompute in (False, True):
        opened, make = made_in(video if TRAINABLES[what].beside_module else still, clips, what, gradient_checkpointing=recompute)
        with opened as base:
            job = make(base)
            parameters = job.task.parameters()
            with torch.no_grad():
                for number, parameter in enumerate(parameters.values()):
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
            job.task.losses(0, range(2)).sum().backward()
            found.append({name: parameter.grad for name, parameter in parameters.items()})
    assert all(gradient.abs().max() > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-7)


def test_words_are_dropped_for_those_of_the_empty_caption():
    from pack.modules.train.denoising import without_conditions

    texts = [
        {"context": torch.full((2, 3), 1.0), "labels": torch.ones(4)},
        {"context": torch.full((3, 3), 2.0), "labels": torch.ones(4)},
    ]
    batch = conditioned(torch.zeros(2, 1, 1, 1, 1), texts, {"context": torch.full((1, 3), 9.0), "labels": torch.full((4,), 5.0)})
    assert batch.context.tolist() == [[[1.0] * 3] * 2 + [[9.0] * 3], [[2.0] * 3] * 3], "behind the shorter one, the empty caption"
    dropped = without_conditions(batch, torch.tensor([True, False]))
    assert dropped.context[1].unique().tolist() == [9.0] and dropped.labels.tolist() == [[1.0] * 4, [5.0] * 4]


def test_captions_of_five_and_seven_pieces_are_no_longer_than_seven():
    """Whole repetitions had made 2,695 tokens of them."""
    blank = torch.zeros(77, 1)
    made = lengthened([torch.ones(5 * 77, 1), torch.ones(7 * 77, 1), blank], blank)
    assert [(len(item), int(item.sum())) for item in made] == [(539, 385), (539, 539), (539, 0)]


def test_a_model_of_labels_takes_the_words_it_knows(video):
    encode = host.text_encoder(video).encode
    assert torch.equal(encode("A red disk, bouncing about")["labels"], video.info.label_vector("red disk bouncing"))
    assert not encode("")["labels"].any() and not encode("nothing of the kind")["labels"].any()


def test_clips_that_are_cut_anew_are_kept_in_so_many_cuts(still, places, monkeypatch):
    images = F.interpolate(torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)), size=SIZE).movedim(1, -1)
    told = {"frames": FRAMES, "stride": 1, "width": SIZE, "height": SIZE}
    clips = LongTakeClipsFromImages.execute(images=images, caption="red disk", **told).args[0]
    assert clips.settings.variants == 0
    assert "3 made" in teach(still, clips, options=replace(QUICK, crops_per_video=3))[-1]
    assert "No cache." in teach(still, clips, name="none", options=replace(QUICK, crops_per_video=0))[-1]


def test_the_options_node_has_the_values_of_its_class():
    schema = LongTakeTrainingOptions.GET_SCHEMA()
    assert [item.id for item in schema.inputs] == [field.name for field in fields(Options)]
    assert LongTakeTrainingOptions.execute().args[0] == Options()
    told = {item.id: item.default for item in schema.inputs}
    assert Options(**told) == Options()
    for wrong, sentence in (
        ({"batch": 0}, "batch is 0"),
        ({"train_blocks": "sideways"}, "'sideways', which is no part of a U-Net"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LongTakeTrainingOptions.execute(**wrong)


def test_the_usual_precision_is_one_of_them():
    assert usual_precision() in ("float32", "bfloat16", "float16")


BAD = {
    "no VAE": ({"vae": None}, "None was given for a VAE"),
    "a name that is a path": ({"name": "a/b"}, "cannot be a file name"),
    "learning rate": ({"learning_rate": 0.0}, "learning_rate is 0: it must lie between"),
    "rank": ({"rank": 99, "what": "domain_adapter"}, "rank is 99"),
    "blocks without modules": ({"options": replace(QUICK, train_blocks="up.7")}, "where there is no motion module"),
    "a CLIP": ({"clip": "clip", "model": None}, "only ComfyUI can encode"),
    "no module for a LoRA": ({"what": "motion_lora"}, "connect Load Motion Module"),
    "reparametrised looks": (
        {"options": replace(QUICK, sigma_reparam=True), "what": "domain_adapter"},
        "sigma_reparam is for motion modules and video models, and a domain adapter is trained",
    ),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_the_first_step(still, clips, places, inputs, sentence):
    if "model" in inputs:
        about = replace(still.info, labels=(), unet=replace(still.info.unet, label_channels=0, context_dim=8))
        inputs = {**inputs, "model": replace(still, info=about)}
    with pytest.raises(ValueError, match=sentence):
        teach(**{"model": still, "clips": clips} | inputs)
    assert not list(places.rglob("*.run.safetensors"))


def test_what_does_not_fit_is_refused(video, still, clips, places):
    with pytest.raises(ValueError, match="has a motion module already"):
        teach(video, clips)
    with pytest.raises(ValueError, match="single frames"):
        teach(still, shapes_of(SIZE, 1))
    odd = unet(model_channels=48, groups=8)
    with pytest.raises(ValueError, match="a level of 48 channels"):
        new_module(odd, 0, 4)
    teach(still, clips)
    for change in ({"steps": 1}, {"seed": 1}, {"options": replace(QUICK, loss="chain")}):
        with pytest.raises(ValueError, match="belongs to another run|is at step 2 and this run shall have 1 steps"):
            teach(still, clips, **change)
    with pytest.raises(ValueError, match="belongs to another run"):
        teach(still, shapes_of(SIZE, 5))


def test_a_folder_that_cannot_be_written_is_refused_first(still, clips, places, monkeypatch):
    (places / "file").write_text("")
    monkeypatch.setattr(host, "model_directory", lambda kind: places / "file" / "below")
    with pytest.raises(ValueError, match="nothing can be written"):
        teach(still, clips)
