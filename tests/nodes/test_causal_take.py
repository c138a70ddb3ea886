"""Causal Take as a node: a take in whole blocks, from nothing or from given frames, and what it refuses before the model is called."""

import pytest
import torch
from pack import host
from pack.modules.control.start_pictures import start_pictures
from pack.modules.sampling.causal_systems import AS_SYSTEM, SYSTEMS, CausalSettings
from pack.nodes.forcing.causal_inputs import LongTakeCausalStart as CausalStart
from pack.nodes.forcing.causal_inputs import LongTakePromptAt as PromptAt
from pack.nodes.forcing.causal_take import LongTakeCausalTake as CausalTake
from tiny_wan import text, wan_model

SIZE = (4, 6)


def empty(frames):
    return {"samples": torch.zeros(1, 16, frames, *SIZE)}


@pytest.mark.comfy
def test_a_take_and_its_report():
    made, report = CausalTake.execute(wan_model(), text(3), empty(9), seed=2).result
    assert made["samples"].shape == (1, 16, 9, *SIZE) and made["samples"].isfinite().all() and made["samples"].std() > 0.1
    assert report.startswith("seed 2, 9 latent frames in blocks of 3, 15 model calls, cache for 21 frames with 0 sink frames")
    assert "0 frames left it; " in report and report.endswith("s a block")


@pytest.mark.comfy
def test_the_same_beginning_however_long_and_another_with_another_seed():
    model = wan_model()
    short, long = (CausalTake.execute(model, text(3), empty(count), seed=2).result[0]["samples"] for count in (6, 9))
    other = CausalTake.execute(model, text(3), empty(6), seed=3).result[0]["samples"]
    assert torch.equal(short, long[:, :, :6]) and not torch.equal(short, other)


@pytest.mark.comfy
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_makes_a_take(system):
    made = CausalTake.execute(wan_model(), text(3), empty(6), seed=2, system=system).result[0]["samples"]
    assert made.isfinite().all()


@pytest.mark.comfy
def test_a_take_goes_on_from_given_frames():
    model = wan_model()
    given = torch.randn(1, 16, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    made = CausalTake.execute(model, text(3), empty(9), seed=2, start={"samples": given}).result[0]["samples"]
    torch.testing.assert_close(made[:, :, :3], given, rtol=1e-5, atol=1e-5)
    alone = CausalTake.execute(model, text(3), empty(9), seed=2).result[0]["samples"]
    assert not torch.allclose(made[:, :, 3:], alone[:, :, 3:])


@pytest.mark.comfy
def test_prompts_are_shown_from_their_times_on_in_any_order():
    model = wan_model()

    def take(*times):
        prompts = None
        for seconds, number in times:
            prompts = PromptAt.execute(text(number), seconds, prompts).result[0]
        return CausalTake.execute(model, text(3), empty(9), seed=2, prompts=prompts).result

    (one, said), (other, _), (plain, _) = take((0.6, 5), (1.2, 6)), take((1.2, 6), (0.6, 5)), take()
    assert "other prompts from frames 3, 6 (recache)" in said
    assert torch.equal(one["samples"], other["samples"])
    assert torch.equal(one["samples"][:, :, :3], plain["samples"][:, :, :3])
    assert all(not torch.allclose(one["samples"][:, :, a : a + 3], plain["samples"][:, :, a : a + 3]) for a in (3, 6))


class Encoder:
    """Stands for Wan's VAE: keeps what it is shown."""

    def encode(self, pictures):
        self.shown = pictures
        return torch.zeros(1, 16, 1 + (len(pictures) - 1) // 4, *SIZE)


@pytest.mark.parametrize(
    ("given", "system", "shown", "latents"),
    [
        (1, "Self-Forcing", [0] * 9, 3),
        (1, "Causal-Forcing, frames", [0], 1),
        (40, "Self-Forcing", list(range(7, 40)), 9),
        (9, "Self-Forcing", list(range(9)), 3),
        (20, "Self-Forcing", list(range(11, 20)), 3),
    ],
)
def test_pictures_fill_whole_blocks(given, system, shown, latents):
    pictures = torch.arange(given).view(-1, 1, 1, 1).expand(given, 32, 48, 4) / 100
    vae = Encoder()
    start = CausalStart.execute(pictures, vae, system).result[0]["samples"]
    assert (vae.shown[:, 0, 0, 0] * 100).round().tolist() == shown and start.shape[2] == latents and vae.shown.shape[-1] == 3


def test_pictures_that_are_less_than_a_block_are_refused():
    with pytest.raises(ValueError, match="8 pictures are less than a block, which is 9 pictures for 3 latent frames: give 9"):
        start_pictures(torch.zeros(8, 4, 4, 3), 3)
    with pytest.raises(ValueError, match="pictures are needed"):
        start_pictures(torch.zeros(4, 4, 3), 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latent": empty(8)}, "frames is 8 and a block has 3 frames: use whole blocks, such as 9"),
        ({"latent": {"samples": torch.zeros(3, 4, *SIZE)}}, "a causal model takes videos"),
        ({"start": {"samples": torch.zeros(1, 16, 2, *SIZE)}}, "known is 2 and a block has 3 frames"),
        ({"start": {"samples": torch.zeros(1, 16, 9, *SIZE)}}, "nothing is left to make"),
        ({"start": {"samples": torch.zeros(1, 16, 3, 8, 8)}}, "they must agree but for the frames"),
        ({"cfg": 3.0}, "no negative conditioning is connected"),
        ({"room": 3, "sink_frames": 3}, "leave room for other frames"),
        ({"system": "Sora"}, "choose one of Self-Forcing"),
        ({"positions": "round"}, "choose one of as the system"),
        ({"switch": "cut"}, "choose one of as the system, recache, renew, flush, none"),
        ({"prompts": PromptAt.execute([], 9.0).result[0]}, "begins at 9 seconds and the take ends at 2.062"),
        ({"prompts": PromptAt.execute([], 0.01).result[0]}, "begins in the same block of 3"),
        ({"prompts": PromptAt.execute(["a", "b"], 1.0).result[0]}, "combined of 2 conditionings and the first prompt of 0"),
        ({"fps": 0.0}, "it must lie between 1 and 240"),
        ({"context_noise": 2.0}, "it must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_looked_at(change, said):
    """The model is nothing that could be called."""
    with pytest.raises(ValueError, match=said):
        CausalTake.execute(**{"model": None, "positive": [], "latent": empty(9), "seed": 0} | change)


@pytest.mark.comfy
def test_a_cache_without_room_for_a_block_is_refused_before_the_model_is_called():
    model = wan_model()
    model.model.diffusion_model.forward = lambda *args, **kwargs: pytest.fail("the model was called")
    with pytest.raises(ValueError, match="set room to 5 or more"):
        CausalTake.execute(model, text(3), empty(9), seed=0, room=4, sink_frames=2)


@pytest.mark.comfy
def test_cancel_leaves_the_model_as_it_was(monkeypatch):
    from pack.host.comfyui.sampling import sampling

    model = wan_model()
    expected = CausalTake.execute(model, text(3), empty(6), seed=2).result[0]["samples"]

    def cancel(self, row, picture=None):
        raise host.Interrupted()

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Progress, "update", cancel)
        with pytest.raises(host.Interrupted):
            CausalTake.execute(model, text(3), empty(6), seed=2)
    assert torch.equal(CausalTake.execute(model, text(3), empty(6), seed=2).result[0]["samples"], expected)


def test_the_standalone_host_says_where_it_works():
    if host.name == "comfyui":
        pytest.skip("this is for the standalone host")
    with pytest.raises(ValueError, match="Causal Take works on image models"):
        CausalTake.execute(None, [], empty(9), seed=0)


def test_settings_are_the_system_s_unless_told_otherwise():
    chosen = CausalSettings("LongLive 1.0").chosen()
    assert chosen == SYSTEMS["LongLive 1.0"] and CausalSettings().positions == AS_SYSTEM
    changed = CausalSettings("LongLive 1.0", room=9, sink_frames=0, positions="window").chosen().cache
    assert (changed.room, changed.sinks, changed.positions) == (9, 0, "window")
