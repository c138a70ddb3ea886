"""Workflows for Wan models in miniature: files that ComfyUI's loader recognises, and stand-ins for the text encoder and the VAE."""

import copy
import json
import zlib
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_wan import randomize, wan_model

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
WIDTH = 128  # ComfyUI's loader wants a multiple of it
TEXT = 4096


class Words:
    """Stands in for a text encoder: four tokens drawn from the text."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return [[torch.randn(1, 4, TEXT, generator=generator), {"pooled_output": None}]]


class SmallTextEncoder:
    """In the place of CLIPLoader."""

    RETURN_TYPES, FUNCTION = ("CLIP",), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"clip_name": ("STRING", {}), "type": ("STRING", {})}})

    def load(self, clip_name, type):
        return (Words(),)


class SmallVae:
    """In the place of VAELoader: what a test has put there."""

    RETURN_TYPES, FUNCTION = ("VAE",), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"vae_name": ("STRING", {})}})
    vae = None

    def load(self, vae_name):
        return (type(self).vae,)


class Keep:
    """Holds on to what a socket gives, by a name."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "keep", True
    INPUT_TYPES = staticmethod(lambda: {"required": {"name": ("STRING", {}), "value": ("*",)}})
    kept: dict = {}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):  # noqa: N802  ComfyUI's name
        return True

    def keep(self, name, value):
        type(self).kept[name] = copy.deepcopy(value)
        return {}


STAND_INS = {"CLIPLoader": SmallTextEncoder, "VAELoader": SmallVae}


def graph_of(name):
    """A workflow in API format."""
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def titled(graph, title):
    """The inputs of the node with that title."""
    (found,) = [node for node in graph.values() if node["_meta"]["title"] == title]
    return found["inputs"]


def id_of(graph, title):
    """The number of the node with that title."""
    (found,) = [number for number, node in graph.items() if node["_meta"]["title"] == title]
    return found


def wan_state(seed=1, **more):
    """A Wan file's weights as ComfyUI's loader recognises them."""
    model = wan_model(dim=WIDTH, num_heads=1, ffn_dim=64, freq_dim=256, text_dim=TEXT, **more)
    network = randomize(model.model.diffusion_model, seed)
    return {key: value.contiguous() for key, value in network.state_dict().items()}


@contextmanager
def wan_files(states):
    """While open, ``models/diffusion_models`` holds these files, and the stand-ins are among ComfyUI's nodes."""
    import folder_paths
    import nodes

    folder = Path(folder_paths.models_dir) / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        save_file(state, folder / name)
    classes = {cls.__name__: cls for cls in (*STAND_INS.values(), Keep)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    try:
        yield
    finally:
        for name in classes:
            del nodes.NODE_CLASS_MAPPINGS[name]
        for name in states:
            (folder / name).unlink()


def run(name, folder, changes=(), keep=()):
    """What a workflow saved, and what some of its sockets gave.

    Args:
        name: of the workflow.
        folder: for what it writes.
        changes: title, input, value.
        keep: titles whose first output is kept.
    """
    from pack.host.comfyui.executor import run_workflow

    graph = graph_of(name)
    for node in graph.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = STAND_INS[node["class_type"]].__name__
    for title, item, value in changes:
        assert item in titled(graph, title), (title, item)
        titled(graph, title)[item] = value
    for place, title in enumerate(keep):
        inputs = {"name": title, "value": [id_of(graph, title), 0]}
        graph[f"keep {place}"] = {"class_type": "Keep", "_meta": {"title": f"keep {place}"}, "inputs": inputs}
    Keep.kept = {}
    return run_workflow(graph, folder), Keep.kept
