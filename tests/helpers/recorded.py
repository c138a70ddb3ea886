"""Small takes to disk by every sampler that finishes frames before its end, through the nodes: for tests, and for benchmarks that kill."""

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from pack import host
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from pack.nodes.forcing.forcing import LongTakeRollout
from pack.nodes.forcing.recording import LongTakeRecord
from pack.nodes.forcing.stream import LongTakeStream
from pack.nodes.forcing.vdm import LongTakeExtend
from tiny import video_model

SETTINGS = {"decode_batch": 4, "save_every": 5}
_before = weakref.WeakKeyDictionary()


class Vae:
    """A VAE that may do something before it decodes, which makes no other VAE of it; it counts its calls.

    Args:
        vae: which decodes.
        before: is told how many calls there were.
    """

    def __init__(self, vae, before=lambda count: None):
        self.vae = vae
        _before[self] = [before, 0]

    def decode(self, latents):
        self.counted()
        return self.vae.decode(latents)

    def counted(self):
        before = _before[self]
        before[0](before[1])
        before[1] += 1

    def __getattr__(self, name):
        """What a decoder in pieces asks of ComfyUI's VAE; it asks for the memory it needs once in each call, but of no latents."""
        if name == "vae":
            raise AttributeError(name)
        if name == "memory_used_decode":
            self.counted()
        return getattr(self.vae, name)

    @property
    def calls(self):
        return _before[self][1]


def grey():
    """A VAE for the frames of image models: a picture of each channel's mean, and of its first row."""

    class Grey:
        def decode(self, latents):
            return (
                torch.cat([latents, latents.mean(dim=1, keepdim=True).expand(-1, 2, -1, -1)], dim=1)[:, :3]
                .sigmoid()
                .movedim(1, -1)
            )

    return Grey()


def video():
    """A MODEL with a level per frame, and its VAE."""
    model = host.video_model(video_model())
    return model, host.vae(host.video_info(model))


def animated():
    """A MODEL of ComfyUI's with a motion module, and a VAE."""
    from pack.modules.checkpoints.motion import load_motion_module
    from tiny_motion import image_model, motion_file

    with tempfile.TemporaryDirectory() as folder:
        return host.apply_motion(image_model(), load_motion_module(motion_file(Path(folder)))), grey()


def wan():
    """A MODEL of Wan's shape, and a VAE that makes four pictures of each latent frame but the first."""
    from unittest.mock import patch

    from tiny_wan import wan_model
    from tiny_wan_vae import wan_vae

    class Patch:
        """As much of pytest's as is needed."""

        @staticmethod
        @contextmanager
        def context():
            with ExitStack() as stack:
                yield SimpleNamespace(setattr=lambda where, name, value: stack.enter_context(patch.object(where, name, value)))

    return wan_model(), wan_vae(Patch)


def _clip(frames):
    return {"samples": torch.zeros(1, 16, frames, 4, 6)}


def _causal(model, recording, frames):
    from pack.nodes.forcing.causal_take import LongTakeCausalTake
    from tiny_wan import text

    recorded = LongTakeRecord.execute(**recording).args[0]
    system = {"system": "Causal-Forcing, frames", "room": 6, "sink_frames": 2}
    given = {"cfg": 2.0, "negative": text(4), "seed": 5, "recording": recorded}
    return LongTakeCausalTake.execute(model, text(3), _clip(frames), **system, **given).args[0]


def _wan_rollout(model, recording, frames):
    from tiny_wan import text

    recorded = LongTakeRecord.execute(**recording).args[0]
    given = {"frames": frames, "steps": 3, "lag": 1.0, "window": 6, "latent": _clip(1), "seed": 5, "recording": recorded}
    return LongTakeRollout.execute(model=model, positive=text(3), **given).args[0]


def _wan_stream(model, recording, frames):
    from tiny_wan import text

    given = {"frames": frames, "steps": 3, "lag": 1.0, "window": 6, "latent": _clip(1), "seed": 5}
    return LongTakeStream.execute(model=model, positive=text(3), **given, **recording).args[3]


def _stream(model, recording, frames):
    return LongTakeStream.execute(model=model, frames=frames, steps=4, lag=1.0, seed=5, **recording).args[3]


def _rollout(model, recording, frames):
    recorded = LongTakeRecord.execute(**recording).args[0]
    return LongTakeRollout.execute(model=model, frames=frames, steps=4, lag=1.0, seed=5, recording=recorded).args[0]


def _extend(model, recording, frames):
    recorded = LongTakeRecord.execute(**recording).args[0]
    clip = {"samples": torch.linspace(-1, 1, 3 * 48 * 16).reshape(3, 48, 4, 4)}
    given = {
        "model": model,
        "clip": clip,
        "new_frames": frames - 3,
        "window": 6,
        "overlap": 3,
        "steps": 2,
        "corrector_steps": 0,
        "weight": 0.0,
    }
    return LongTakeExtend.execute(**given, seed=5, recording=recorded).args[0]


def _forcing(model, recording, frames):
    from custom import advanced, forcing, scheduler_sigmas
    from native import label

    sampler = forcing("pyramid", frames, 4, window=8, eta=0.5, recording=LongTakeRecord.execute(**recording).args[0])
    latent = torch.zeros(frames, 48, 4, 4)
    return {"samples": advanced(model, sampler, latent, scheduler_sigmas(model, 4), positive=label(1), seed=5)}


def _fifo(model, recording, frames):
    from custom import advanced, scheduler_sigmas
    from tiny_motion import text

    recorded = LongTakeRecord.execute(**recording).args[0]
    sampler = LongTakeFifoSampler.execute(partitions=2, window=4, eta=0.5, recording=recorded, frames=frames).args[0]
    prompts = {"positive": text(3), "negative": text(4), "cfg": 2.0}
    return {"samples": advanced(model, sampler, torch.zeros(1, 4, 8, 8), scheduler_sigmas(model, 8), seed=5, **prompts)}


@dataclass(frozen=True)
class Take:
    """A sampler's takes.

    Attributes:
        run: makes one: model, inputs of a recording, frames -> LATENT of its end.
        parts: makes a MODEL and its VAE.
        comfy: whether only ComfyUI can run it.
        each: pictures of a latent frame, the first of which is one.
    """

    run: object
    parts: object = video
    comfy: bool = False
    each: int = 1

    def pictures(self, frames):
        """How many pictures so many latent frames are in the end."""
        return 1 + self.each * (frames - 1)

    def there(self, frames):
        """How many pictures so many latent frames have given in the middle of a take, at most; Wan's VAE makes them two at a time."""
        return frames if self.each == 1 else self.pictures(1 + (frames - 1) // 2 * 2)

    def make(self, folder, frames=18, before=lambda count: None, **settings):
        """One take below the output folder. Gives the samples of its end."""
        model, vae = self.parts()
        recording = {"vae": Vae(vae, before), "folder": folder, **SETTINGS, **settings}
        return self.run(model, recording, frames)["samples"]


TAKES = {
    "Stream": Take(_stream),
    "Rollout": Take(_rollout),
    "Extend": Take(_extend),
    "Forcing Sampler": Take(_forcing, comfy=True),
    "FIFO on AnimateDiff": Take(_fifo, animated, comfy=True),
    "Causal Take": Take(_causal, wan, comfy=True, each=4),
    "Rollout on Wan": Take(_wan_rollout, wan, comfy=True, each=4),
    "Stream on Wan": Take(_wan_stream, wan, comfy=True, each=4),
}


def frames_in(folder, ending="png"):
    """Contents of a take's frames by name."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob(f"*.{ending}"))}


def cancel() -> None:
    """What a user does."""
    if host.name == "comfyui":
        import comfy.model_management

        comfy.model_management.interrupt_current_processing()
    else:
        from pack.host.standalone import session

        session.current().cancel()


@contextmanager
def cancelled() -> Iterator[None]:
    """While open, a take is made that the user cancels: in ComfyUI it ends there, elsewhere the run does. Afterwards that is forgotten."""
    if host.name == "comfyui":
        yield
        host.check_interrupt()  # used up
        return
    from pack.host.standalone import session

    try:
        yield
    except host.Interrupted:
        session.current().resume()
    else:
        raise AssertionError("it was not cancelled")
