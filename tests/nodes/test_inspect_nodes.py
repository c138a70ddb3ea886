"""The nodes that measure: logs, attentions in both hosts, spectra, reports and comparisons."""

import json
import math

import pytest
import tiny
import torch
from pack import host
from pack.modules.disk import log
from pack.modules.draw.attention_picture import attention_table, chosen, entropy_picture, map_picture, warnings_of
from pack.modules.draw.clip_report import FLOOR, motion_lines, spectrum_picture
from pack.modules.draw.log_picture import log_picture, log_text
from pack.modules.measure.attention import Reading
from pack.modules.measure.compare import COMPARISONS, CompareSettings, compared
from pack.nodes.measure.clips import LongTakeCompareVideos, LongTakeMotionSpectrum, LongTakeVideoMetrics
from pack.nodes.measure.training import LongTakeAttentionEntropy, LongTakeLossPlot

LINES = [{"step": step, "loss": 2.0 / step, "grad_norm": 1.0, "lr": 1e-3} for step in range(1, 41)]


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# Logs


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "runs" / "run.jsonl"
    for line in LINES:
        log.add(path, line)
    assert log.read(path) == LINES
    assert log.column(log.read(path), "loss")[1] == [line["loss"] for line in LINES]


def test_csv_is_the_same(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step, loss,note\n1,0.5,begun\n2,,\n3,0.25,x\n", encoding="utf-8")
    assert log.read(path) == [{"step": 1, "loss": 0.5}, {"step": 2}, {"step": 3, "loss": 0.25}]
    assert log.column(log.read(path), "loss") == ([1, 3], [0.5, 0.25])


@pytest.mark.parametrize("left", [5, 30])
def test_half_a_line_at_the_end_is_passed_over_and_cut(tmp_path, left):
    path = tmp_path / "run.jsonl"
    for line in LINES[:3]:
        log.add(path, line)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + json.dumps(LINES[3])[:left], encoding="utf-8")
    assert log.read(path) == LINES[:3]
    log.cut(path, 2)
    assert log.read(path) == LINES[:2]
    log.add(path, LINES[2])
    assert path.read_text(encoding="utf-8") == whole
    assert [item.name for item in tmp_path.iterdir()] == ["run.jsonl"]
    log.cut(tmp_path / "none.jsonl", 2)


def test_a_step_that_comes_twice_counts_as_it_was_last():
    records = log.parse('{"step": 2, "loss": 9}\n{"step": 1, "loss": 3}\n{"step": 2, "loss": 1}\n')
    assert log.column(records, "loss") == ([1, 2], [3, 1])


def test_what_is_no_number_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    log.add(path, {"step": 1, "loss": math.nan, "note": "begun", "rows": [1]})
    log.add(path, {"step": 2, "loss": 0.5})
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["loss"] is None
    assert log.column(log.read(path), "loss") == ([2], [0.5])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the log is empty"),
        ("{broken\n{}\n", "line 1 of the log is no JSON"),
        ('{"step": 1}\n[1]\n{"step": 2}', "line 2 of the log is list"),
        ('{"loss": 1}', "the log has no step"),
        ("loss,lr\n1,2", "the log is neither JSON lines nor CSV"),
    ],
)
def test_texts_that_are_no_log(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        log.parse(text)


def test_a_training_checkpoint_is_a_log(tmp_path):
    from safetensors.torch import save_file

    save_file({"losses": torch.tensor([3.0, 2.0], dtype=torch.float64)}, tmp_path / "a.run.safetensors")
    assert log.read(tmp_path / "a.run.safetensors") == [{"step": 1, "loss": 3}, {"step": 2, "loss": 2}]
    save_file({"weights": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b.safetensors is no training checkpoint"):
        log.read(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"c.safetensors cannot be read"):
        log.read(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="there is no log none"):
        log.read(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="a line of the log needs its step: this one has loss"):
        log.add(tmp_path / "x.jsonl", {"loss": 1})


def test_panels_follow_what_a_log_tells():
    loss_only = [{"step": line["step"], "loss": line["loss"]} for line in LINES]
    one, three = (log_picture({"run": records}, 0.9) for records in (loss_only, LINES))
    assert three.shape[1] == 3 * one.shape[1]
    both = log_picture({"run": loss_only, "other": LINES}, 0.9)
    assert both.shape[1] == 3 * one.shape[1]
    with pytest.raises(ValueError, match="no line of run has a loss"):
        log_picture({"run": [{"step": 1.0, "lr": 1.0}]}, 0.9)
    with pytest.raises(ValueError, match="smoothing is 1"):
        log_picture({"run": LINES}, 1)


def test_long_logs_are_drawn_by_some_of_their_steps():
    long = [{"step": float(step), "loss": 1.0 + step} for step in range(50_000)]
    assert torch.isfinite(log_picture({"long": long}, 0.5)).all()


def test_the_text_says_how_it_went():
    text = log_text({"run": LINES, "empty": [{"step": 1.0}]})
    assert "run: steps 1 to 40, lowest loss 0.05 at step 40, mean of the last 40" in text
    assert "highest gradient norm 1" in text
    assert "empty: no loss" in text


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "output").mkdir()
    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path / "models")
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path / "output")
    return tmp_path


def test_the_plot_node_reads_names_and_text(folders):
    for name, records in (("models/a.jsonl", LINES), ("output/b.jsonl", LINES[:5])):
        for line in records:
            log.add(folders / name, line)
    plot, text = LongTakeLossPlot.execute(log="a.jsonl\nb.jsonl\n").args
    assert plot.ndim == 4 and plot.shape[-1] == 3
    assert [line.split(":")[0] for line in text.splitlines()] == ["a.jsonl", "b.jsonl"]
    _, typed = LongTakeLossPlot.execute(log="\n".join(json.dumps(line) for line in LINES)).args
    assert typed.startswith("log: steps 1 to 40")
    _, table = LongTakeLossPlot.execute(log="step,loss\n1,0.5\n2,0.25").args
    assert table.startswith("log: steps 1 to 2")


@pytest.mark.parametrize("name", ["none.jsonl", "../secret.jsonl", "/etc/hostname"])
def test_logs_are_read_from_two_folders_only(folders, name):
    log.add(folders / "secret.jsonl", LINES[0])
    with pytest.raises(ValueError, match="there is no log"):
        LongTakeLossPlot.execute(log=name)
    with pytest.raises(ValueError, match="log is empty"):
        LongTakeLossPlot.execute(log=" \n")


# Attention


READINGS = {
    "down.0.0/0": Reading("down.0.0/0", (0.9, 0.8), 3.0),
    "mid.0/0": Reading("mid.0/0", (0.2, 0.1), 60.0),
}


def test_the_lowest_attention_is_chosen_unless_one_is_named():
    assert chosen(READINGS, " ") == "mid.0/0"
    assert chosen(READINGS, "down.0.0/0") == "down.0.0/0"
    with pytest.raises(ValueError, match="there is no attention 'up.1.1/0': choose one of down.0.0/0, mid.0/0"):
        chosen(READINGS, "up.1.1/0")


def test_the_table_names_every_attention_and_what_is_wrong():
    text = attention_table(READINGS)
    assert "0.850" in text and "60.00" in text
    assert "mid.0/0: a logit of 60" in text
    assert "mid.0/0: entropy 0.15, below 0.35" in text
    assert warnings_of({"a": READINGS["down.0.0/0"]}) == ["nothing to worry about"]


def test_pictures_are_bright_where_heads_look_everywhere():
    image = entropy_picture(READINGS)
    cells = image[0, 24:]
    left = 12 + 6 * max(map(len, READINGS))
    brightness = [cells[row * 20 + 10, left + 10].sum() for row in range(2)]
    assert brightness[0] > brightness[1]
    weights = torch.eye(6).expand(4, -1, -1)
    sheet = map_picture(weights)
    assert sheet[0, 5, 5].sum() > sheet[0, 5, 200].sum()


@pytest.fixture
def video(tiny_video_model):
    return tiny_video_model


@pytest.fixture
def model(video):
    return host.video_model(video)


def latent(frames=5, seed=3):
    return {"samples": torch.randn(frames, 48, 4, 4, generator=torch.Generator().manual_seed(seed))}


def test_the_attention_node_looks_at_a_video_model(model):
    with torch.inference_mode():
        table, entropies, picture = LongTakeAttentionEntropy.execute(model=model, latent=latent()).args
    motion = host.motion_models(model)[0]
    assert all(f"{block}" in table for block in ("down.0.0/0", "mid.0/0", "up.1.1/0"))
    assert entropies.shape[0] == picture.shape[0] == 1
    assert not any("_mixed" in vars(item) for item in motion.modules()), "nothing is left in the model"
    again = LongTakeAttentionEntropy.execute(model=model, latent=latent()).args[0]
    assert again == table
    other = LongTakeAttentionEntropy.execute(model=model, latent=latent(), percent=0.9, attention="mid.0/0").args[0]
    assert other != table and "map of mid.0/0" in other


def test_what_the_node_tells_is_what_the_network_does(video, model):
    """The same frames through our own networks, watched by hand."""
    from pack.modules.checkpoints.video_model import clean_prediction
    from pack.modules.draw.attention_picture import named
    from pack.modules.measure.attention import watching
    from pack.modules.noise.levels import NoiseSchedule
    from pack.modules.noise.seeded import frame_noise

    text = LongTakeAttentionEntropy.execute(model=model, latent=latent(), percent=0.4, seed=7).args[0]
    unet, motion = video.build()
    schedule = NoiseSchedule.named(video.info.noise_schedule)
    sigma = schedule.at_percent(0.4)
    x = latent()["samples"] + sigma * frame_noise((48, 4, 4), 7, range(5), "look")
    frames = motion.frames_for(torch.arange(5))
    with torch.no_grad(), watching(motion) as watch, motion.during(frames):
        clean_prediction(unet, x, torch.full((5,), sigma), schedule, video.info.prediction, y=torch.zeros(5, len(tiny.LABELS)))
    readings, _ = named([watch])
    wanted = attention_table(readings).splitlines()
    assert [line.split() for line in text.splitlines()[2:]] == [line.split() for line in wanted]


def test_after_an_error_the_model_is_as_it_was(model, monkeypatch):
    monkeypatch.setattr("pack.nodes.measure.training.named", lambda watches: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LongTakeAttentionEntropy.execute(model=model, latent=latent())
    assert not any("_mixed" in vars(item) for motion in host.motion_models(model) for item in motion.modules())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attention": "up.7.7/0"}, "there is no attention 'up.7.7/0'"),
        ({"percent": 0.0}, "percent is 0: it must lie between 0.01 and 0.99"),
        ({"percent": 1.0}, "percent is 1: it must lie between 0.01"),
        ({"latent": {"samples": torch.zeros(5, 7, 4, 4)}}, "with 48 channels for this model"),
        ({"latent": {"samples": torch.zeros(1, 48, 4, 4)}}, "temporal attentions look at 2 frames or more"),
        ({"latent": {"samples": torch.zeros(1, 48, 3, 4, 4)}}, "f c h w"),
        ({"latent": {"samples": torch.full((3, 48, 4, 4), math.nan)}}, "the latent is not finite"),
    ],
)
def test_attentions_that_cannot_be_looked_at(model, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        LongTakeAttentionEntropy.execute(model=model, **({"latent": latent()} | change))


@pytest.mark.comfy
def test_animatediff_on_an_image_model_is_watched(tmp_path):
    from pack.modules.checkpoints.motion import load_motion_module
    from tiny_motion import image_model, motion_file, text

    bare = image_model()
    moving = host.apply_motion(bare, load_motion_module(motion_file(tmp_path)))
    clip = {"samples": torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
    with torch.inference_mode():
        table = LongTakeAttentionEntropy.execute(model=moving, latent=clip, positive=text()).args[0]
    assert table.count("/0 ") == table.count("/1 ") == 10, "two attentions in each of ten modules"
    twice = host.apply_motion(moving, load_motion_module(motion_file(tmp_path, name="second.safetensors", seed=5)))
    with torch.inference_mode():
        both = LongTakeAttentionEntropy.execute(model=twice, latent=clip, positive=text()).args[0]
    assert "1: down.0.0/0" in both and "2: down.0.0/0" in both
    with pytest.raises(ValueError, match="this MODEL has no temporal modules"):
        LongTakeAttentionEntropy.execute(model=bare, latent=clip, positive=text())
    with pytest.raises(ValueError, match="nothing is connected to positive"):
        LongTakeAttentionEntropy.execute(model=moving, latent=clip)


# Spectra and reports


def test_the_spectrum_node_tells_motion_from_flicker():
    still = drawn(1, 8, 8, 3).expand(12, -1, -1, -1)
    flicker = still * (1 + 0.1 * (-1) ** torch.arange(12))[:, None, None, None]
    plot, text = LongTakeMotionSpectrum.execute(images=still, other=flicker).args
    assert plot.shape == (1, 480, 800, 3)
    row = next(line for line in text.splitlines() if line.startswith("share of the highest quarter"))
    assert row.split()[-2:] == ["0", "1"]
    assert len(LongTakeMotionSpectrum.execute(images=flicker, hann=True).args[1].splitlines()[0].split()) == 1
    with pytest.raises(ValueError, match="the clip has 1 frame"):
        LongTakeMotionSpectrum.execute(images=still[:1])


def test_short_clips_are_measured_as_far_as_they_go():
    lines = motion_lines({"two": drawn(2, 4, 4, 3)})
    assert len(lines) == 5
    assert torch.isfinite(spectrum_picture({"still": torch.zeros(4, 4, 4, 3)})).all()
    assert FLOOR > 0


def test_the_metrics_node_reports_with_the_proxy_and_with_a_network(tmp_path, monkeypatch):
    a, b = drawn(10, 8, 8, 3), drawn(10, 8, 8, 3, seed=1)
    (text,) = LongTakeVideoMetrics.execute(images_a=a, images_b=b, sample_frames=4, stride=2, parts=2).args
    assert "random3d (a proxy: untrained)" in text
    assert "frames 0-4" in text and "frames 5-9" in text

    class Means(torch.nn.Module):
        def forward(self, x):
            return x.flatten(2).mean(2)

    torch.jit.trace(Means(), torch.zeros(1, 3, 8, 8)).save(tmp_path / "means.pt")
    monkeypatch.setattr(host, "file", lambda kind, name: tmp_path / name)
    given = {"images_a": a, "images_b": b, "features": "means.pt", "size": 0, "sample_frames": 4, "stride": 2}
    assert "Frechet distance by means" in LongTakeVideoMetrics.execute(**given, looks_at="frames").args[0]
    scores = LongTakeVideoMetrics.execute(**given, looks_at="frames, class scores").args[0]
    assert "inception score by means: 1.0" in scores


def test_feature_networks_have_a_folder_in_this_host():
    assert isinstance(host.files("feature_networks"), list)


# Comparisons


@pytest.mark.parametrize("kind", COMPARISONS)
def test_comparisons_of_two_colours(kind):
    black, grey = torch.zeros(2, 8, 10, 3), torch.full((2, 8, 10, 3), 0.2)
    image = compared(black, grey, CompareSettings(kind, position=0.5, gain=2.0))
    assert len(image) == 2
    if kind == "side_by_side":
        assert image.shape == (2, 8, 24, 3)
        assert image[0, 0, [0, 11, 23], 0].tolist() == pytest.approx([0, 1, 0.2])
    elif kind == "above":
        assert image.shape == (2, 20, 10, 3)
        assert image[0, [0, 9, 19], 0, 0].tolist() == pytest.approx([0, 1, 0.2])
    elif kind == "slider":
        assert image[0, 0, :, 0].tolist() == pytest.approx([0, 0, 0, 0, 1, 1, 0.2, 0.2, 0.2, 0.2])
    else:
        torch.testing.assert_close(image, torch.full_like(image, 0.4))


def test_a_slider_at_its_ends_is_one_of_the_clips():
    a, b = drawn(2, 4, 6, 3), drawn(2, 4, 6, 3, seed=1)
    assert torch.equal(compared(a, b, CompareSettings("slider", position=1.0)), a)
    assert torch.equal(compared(a, b, CompareSettings("slider", position=0.0)), b)


def test_the_compare_node_leaves_its_inputs_alone():
    a, b = drawn(2, 4, 6, 3), drawn(2, 4, 6, 3, seed=1)
    before = a.clone(), b.clone()
    picture, text = LongTakeCompareVideos.execute(images_a=a, images_b=b, show="slider").args
    assert picture.shape == a.shape and "PSNR" in text
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])
    assert LongTakeCompareVideos.execute(images_a=a, images_b=a).args[1] == "the clips are equal, bit for bit"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images_b": torch.zeros(3, 4, 6, 3)}, "give two of one length and size"),
        ({"images_b": torch.zeros(2, 5, 6, 3)}, "give two of one length and size"),
        ({"images_a": torch.zeros(4, 6, 3)}, "the clip has the shape"),
        ({"position": 2.0}, "position is 2: it must lie between 0 and 1"),
        ({"gain": 0.0}, "gain is 0: it must lie between 0.1 and 100"),
        ({"show": "overlay"}, "show is 'overlay': choose one of side_by_side, above"),
    ],
)
def test_clips_that_cannot_be_compared(change, sentence):
    given = {"images_a": torch.zeros(2, 4, 6, 3), "images_b": torch.zeros(2, 4, 6, 3)}
    with pytest.raises(ValueError, match=sentence):
        LongTakeCompareVideos.execute(**(given | change))
