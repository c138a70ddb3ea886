"""Small takes to disk by every sampler that finishes frames before its end, through the nodes: for tests, and for benchmarks that kill."""

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
        before = _before[self]
        before[0](before[1])
        before[1] += 1
        return self.vae.decode(latents)

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
    """

    run: object
    parts: object = video
    comfy: bool = False

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
