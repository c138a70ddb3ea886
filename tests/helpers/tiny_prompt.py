"""Small IP-Adapter files for tests, and a CLIP vision model's stand-in."""

import torch
from pack.modules.control.image_prompt import ImagePromptModel, PromptShape, cross_layers, widths_of
from safetensors.torch import save_file
from tiny_motion import randomized

CLIP, SEEN = 24, 9  # features of the image encoder's embedding and of its tokens, how many tokens it gives
EXTRA = {"plain": {"tokens": 4}, "plus": {"tokens": 5, "hidden": 32, "depth": 4, "heads": 2}, "full": {"tokens": 0}}


def prompt_state(unet, kind="plain", *, seed=21, clip=CLIP):
    """The state dict of an IP-Adapter file for a U-Net."""
    widths, context = widths_of(cross_layers(unet))
    shape = PromptShape(kind=kind, clip=clip, context=context, widths=widths, **EXTRA[kind])
    model = randomized(ImagePromptModel(shape), seed)
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def in_two_dictionaries(state):
    """As the ``.bin`` files are."""
    return {
        part: {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }


def prompt_file(folder, state, *, name="ip-adapter.safetensors"):
    """A file in the layout that its ending stands for."""
    path = folder / name
    if path.suffix == ".bin":
        torch.save(in_two_dictionaries(state), path)
    else:
        save_file(state, path)
    return path


class Seen:
    """ComfyUI's CLIP_VISION_OUTPUT, as far as image prompts look at it."""

    def __init__(self, image_embeds, penultimate_hidden_states):
        self.image_embeds, self.penultimate_hidden_states = image_embeds, penultimate_hidden_states


class SmallVision:
    """Stands in for a CLIP vision model: features drawn from each picture's mean colour."""

    image_mean = (0.5, 0.4, 0.3)

    def __init__(self, clip=CLIP, seed=31):
        generator = torch.Generator().manual_seed(seed)
        self.embeds = torch.randn(3, clip, generator=generator)
        self.hidden = torch.randn(3, SEEN * clip, generator=generator)
        self.calls = []

    def encode_image(self, images, crop=True):
        self.calls.append(images.clone())
        colour = images[..., :3].mean(dim=(1, 2)) - torch.tensor(self.image_mean)
        return Seen(colour @ self.embeds, (colour @ self.hidden).unflatten(1, (SEEN, -1)))


def pictures(count=2, size=16, seed=41):
    """IMAGE of plain colours."""
    colours = torch.rand(count, 1, 1, 3, generator=torch.Generator().manual_seed(seed))
    return colours.expand(count, size, size, 3).clone()
