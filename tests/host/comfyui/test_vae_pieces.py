"""Wan's VAEs in pieces against the same VAE on the whole latent: the same bits, however the latent is cut, stopped and gone on with."""

import pytest
import torch
from pack import host
from pack.nodes.models.decode_pieces import LongTakeDecodePieces as DecodePieces
from tiny_wan_vae import wan_vae

pytestmark = pytest.mark.comfy
CHANNELS = (16, 48)


def latent(channels, frames=12, seed=1, batch=1):
    return torch.randn(batch, channels, frames, 4, 6, generator=torch.Generator().manual_seed(seed))


def in_pieces(decoder, z, sizes):
    made, at = [], 0
    for number, size in enumerate(sizes, 1):
        made.append(decoder(z[:, :, at : at + size], last=number == len(sizes)))
        at += size
    return torch.cat(made)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("frames", [12, 9])
def test_pieces_are_the_whole_bit_for_bit(channels, frames, monkeypatch):
    vae, z = wan_vae(monkeypatch, channels), latent(channels, frames)
    whole = vae.decode(z)[0]
    assert len(whole) == 1 + 4 * (frames - 1) and whole.std() > 0.1
    for sizes in ([3] * (frames // 3), [1] * frames, [1, frames - 1], [frames], [2, frames - 2, 0], [8, frames - 8]):
        assert torch.equal(in_pieces(host.piece_decoder(vae), z, sizes), whole), sizes


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_cache_is_what_joins_them(channels, monkeypatch):
    vae, z = wan_vae(monkeypatch, channels), latent(channels, 6)
    apart = torch.cat([host.piece_decoder(vae)(part, last=True) for part in z.split(3, 2)])
    whole = vae.decode(z)[0]
    assert len(apart) != len(whole) and not torch.allclose(apart[9:], whole[9 : len(apart)], atol=1e-2)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_decoder_goes_on_from_its_tensors(channels, monkeypatch):
    vae, z = wan_vae(monkeypatch, channels), latent(channels, 10)
    whole = vae.decode(z)[0]
    for cut in (0, 1, 2, 3, 6):
        decoder = host.piece_decoder(vae)
        begun = [decoder(z[:, :, :cut])] if cut else []
        kept = {name: tensor.clone() for name, tensor in decoder.tensors().items()}
        other = host.piece_decoder(vae)
        other.restore(kept)
        assert torch.equal(torch.cat([*begun, other(z[:, :, cut:], last=True)]), whole), cut


def test_what_is_kept_does_not_grow(monkeypatch):
    decoder, sizes = host.piece_decoder(wan_vae(monkeypatch)), []
    for part in latent(16, 30).split(3, 2):
        decoder(part)
        sizes.append(sum(tensor.numel() for tensor in decoder.tensors().values()))
    assert len(set(sizes[2::2])) == 1 and len(set(sizes[3::2])) == 1


def test_the_node_gives_what_vae_decode_gives_and_stops_when_told(monkeypatch):
    vae, z = wan_vae(monkeypatch), latent(16, 7, batch=2)
    pictures = DecodePieces.execute({"samples": z}, vae, piece=3).result[0]
    assert torch.equal(pictures, torch.cat([vae.decode(clip)[0] for clip in z.split(1)]))
    shown = []

    def cancel(self, done, preview=None):
        shown.append(done)
        raise host.Interrupted

    monkeypatch.setattr(host.Progress, "update", cancel)
    with pytest.raises(host.Interrupted):
        DecodePieces.execute({"samples": z}, vae, piece=3)
    assert shown == [3]


def test_other_vaes_and_latents_are_refused():
    class Other:
        first_stage_model = torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="Linear is not Wan's VAE"):
        host.piece_decoder(Other())
    with pytest.raises(ValueError, match=r"\[2, 4, 8, 8\]: Wan's is b c f h w"):
        DecodePieces.execute({"samples": torch.zeros(2, 4, 8, 8)}, Other(), piece=3)
