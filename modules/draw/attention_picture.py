"""What temporal attentions do in one call of a model, as a table and as pictures: the entropies of all heads, and where frames look."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..measure.alarms import Snapshot, findings
from ..measure.attention import Reading, Watch
from ..noise.seeded import frame_noise
from ..sampling.coordinates import mixed
from ..sampling.job import Job, Step
from ..sampling.model_view import View
from .canvas import Canvas
from .pictures import contact_sheet, heat_map

CELL = 20  # pixels of a head
LONGEST = 2048


def one_call(job: Job) -> Generator[Step, None, Tensor]:
    """A sampler that calls the model once, on the whole clip with noise of the highest sigma. Returns ``f ...``, the clean guess."""
    frames = range(len(job.latent))
    noise = frame_noise(job.latent.shape[1:], job.seed, frames, "look").to(job.latent)
    sigma = job.sigmas[-1].expand(len(frames)).to(job.latent)
    view = View.plain(mixed(job.latent, noise, sigma, job.coordinates), sigma)
    clean = job.guide(job.denoise, replace(view, coordinates=job.coordinates, top=float(job.sigmas[-1])))
    yield Step(1, 1, clean)
    return clean


def check_frames(latent: Tensor, channels: int | None) -> None:
    """Refuse what is no clip for a model.

    Args:
        latent: ``...``, what was given.
        channels: of the model's latents, None where it does not say.

    Raises:
        ValueError: another layout, too few frames to look at each other, or values that are no numbers.
    """
    if latent.ndim != 4 or channels not in (None, latent.shape[1]) or len(latent) < 2:
        raise ValueError(
            f"the latent has the shape {list(latent.shape)}: temporal attentions look at 2 frames or more, f c h w"
            + (f", with {channels} channels for this model" if channels else "")
        )
    if not bool(torch.isfinite(latent).all()):
        raise ValueError("the latent is not finite (NaN or infinite): encode or load it again")


def named(watches: Sequence[Watch]) -> tuple[dict[str, Reading], dict[str, Tensor]]:
    """The readings and the maps of several motion models by block; where there are several, blocks begin with the model's number."""
    readings: dict[str, Reading] = {}
    maps: dict[str, Tensor] = {}
    for number, watch in enumerate(watches, 1):
        for reading in watch.readings():
            name = reading.block if len(watches) == 1 else f"{number}: {reading.block}"
            readings[name], maps[name] = replace(reading, block=name), watch.map(reading.block)
    if not readings:
        raise ValueError("no temporal attention ran: the motion module's effect is 0 here, or it rests at this noise level")
    return readings, maps


def chosen(readings: Mapping[str, Reading], block: str) -> str:
    """The block of this name, or the one that looks at the fewest frames if the name is empty.

    Raises:
        ValueError: there is none of this name.
    """
    block = block.strip()
    if block and block not in readings:
        raise ValueError(f"there is no attention {block!r}: choose one of {', '.join(readings)}, or leave it empty")
    return block or min(readings.values(), key=lambda reading: reading.mean).block


def attention_table(readings: Mapping[str, Reading]) -> str:
    """One line per attention, and what is wrong with it."""
    width = max(len(block) for block in readings)
    lines = [f"{'attention':<{width}}  entropy  lowest head  largest logit"]
    for block, reading in readings.items():
        lines.append(f"{block:<{width}}  {reading.mean:7.3f}  {min(reading.entropy):11.3f}  {reading.max_logit:13.2f}")
    lines += ["", "1 looks at all frames alike, 0 at a single one.", *warnings_of(readings)]
    return "\n".join(lines)


def warnings_of(readings: Mapping[str, Reading]) -> list[str]:
    """What is wrong with the attentions as they are, a sentence each."""
    found = findings([Snapshot(0, 0.0, tuple(readings.values()))])
    return [item.sentence.removeprefix("step 0: ").removeprefix("step 0, ") for item in found] or ["nothing to worry about"]


def entropy_picture(readings: Mapping[str, Reading]) -> Tensor:
    """Attentions downwards, heads to the right, bright where a head looks everywhere. Returns ``1 h w 3``."""
    heads = max(len(reading.entropy) for reading in readings.values())
    values = torch.tensor([[*reading.entropy, *[0.0] * (heads - len(reading.entropy))] for reading in readings.values()])
    cell = max(12, min(CELL, LONGEST // len(values)))
    cells = heat_map(values, top=1.0, cell=cell, longest=LONGEST)[0]
    left = 12 + 6 * max(len(block) for block in readings)
    canvas = Canvas(left + max(cells.shape[1], 120), 24 + cells.shape[0], paper="white", ink="black")
    canvas.paste(cells, left, 24)
    canvas.text(left, 6, "entropy by head")
    for row, block in enumerate(readings):
        canvas.text(6, 24 + row * cell + (cell - 12) // 2, block)
    return canvas.image()


def map_picture(weights: Tensor) -> Tensor:
    """Each head's map beside the others': rows look at columns, the brightest of all heads is bright.

    Args:
        weights: ``heads f g``, rows sum to 1.

    Returns:
        image: ``1 h w 3``.
    """
    weights = weights.float().cpu()
    cell = max(1, 256 // weights.shape[-1])
    maps = [heat_map(head, top=float(weights.max()), cell=cell, longest=512) for head in weights]
    return contact_sheet(torch.cat(maps), columns=4, count=len(maps), gap=4)
