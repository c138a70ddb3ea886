"""Draw the workflows of ``workflows/api`` for ComfyUI's editor: ``python workflows/api_to_ui.py [--check]``.

The files in ``workflows/api`` are written by hand; those in ``workflows``, which ComfyUI lists as templates, are made here. Nodes stand
in columns, each right of what it needs; what stands under ``note`` in a node's ``_meta`` becomes a note. ``--check`` only says what is
out of date.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).absolute().parent
SEEDS = ("seed", "noise_seed")  # the editor gives these a control of their own, unless the schema says no
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
WIDTH, GAP_X, GAP_Y, ROW, HEAD = 330, 90, 60, 24, 60
PICTURE = 260  # room for what a node shows
SHOWING = ("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "SaveVideo", "LoadImage", "LoadVideo", "LongTakeShowPlan")
CANVASES = {"LongTakeKeyframes": 192, "LongTakeNoiseLevels": 214}  # heights of web/*_widget.js, margins included


def load_run() -> ModuleType:
    """``run.py`` as a module: it knows how to import the pack."""
    spec = importlib.util.spec_from_file_location("longtake_run", FOLDER.parent / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schemas() -> dict[str, Any]:
    """The schemas of this pack's nodes and the standalone host's core ones, by class."""
    run = load_run()
    core = run.part("host.standalone.core_nodes")
    nodes = run.pack_nodes() | {node.__name__: node for node in (*core.NODES, *core.VIDEO_NODES)}
    known = {name: node.GET_SCHEMA() for name, node in nodes.items()}
    return known | {schema.node_id: schema for schema in others(core.io)}


# ComfyUI's own nodes that only ComfyUI can run: inputs as "name:TYPE" or "name:TYPE=value in a new node", outputs as "TYPE" or "name:TYPE".
# TEXT is a large text box, VIDEO_FILE a menu that uploads.
COMFYUIS = {
    "BasicScheduler": ("model:MODEL scheduler:COMBO steps:INT=20 denoise:FLOAT=1.0", "SIGMAS"),
    "Canny": ("image:IMAGE low_threshold:FLOAT=0.4 high_threshold:FLOAT=0.8", "IMAGE"),
    "CFGGuider": ("model:MODEL positive:CONDITIONING negative:CONDITIONING cfg:FLOAT=8.0", "GUIDER"),
    "CheckpointLoaderSimple": ("ckpt_name:COMBO", "MODEL CLIP VAE"),
    "CLIPLoader": ("clip_name:COMBO type:COMBO", "CLIP"),
    "CLIPTextEncode": ("text:TEXT clip:CLIP", "CONDITIONING"),
    "CLIPVisionLoader": ("clip_name:COMBO", "CLIP_VISION"),
    "ConditioningCombine": ("conditioning_1:CONDITIONING conditioning_2:CONDITIONING", "CONDITIONING"),
    "ConditioningSetMask": ("conditioning:CONDITIONING mask:MASK strength:FLOAT=1.0 set_cond_area:COMBO", "CONDITIONING"),
    "ControlNetApplyAdvanced": (
        "positive:CONDITIONING negative:CONDITIONING control_net:CONTROL_NET image:IMAGE strength:FLOAT=1.0 start_percent:FLOAT=0.0"
        " end_percent:FLOAT=1.0",
        "positive:CONDITIONING negative:CONDITIONING",
    ),
    "ControlNetLoader": ("control_net_name:COMBO", "CONTROL_NET"),
    "EmptyHunyuanLatentVideo": ("width:INT=848 height:INT=480 length:INT=25 batch_size:INT=1", "LATENT"),
    "EmptyImage": ("width:INT=512 height:INT=512 batch_size:INT=1 color:INT=0", "IMAGE"),
    "EmptyLatentImage": ("width:INT=512 height:INT=512 batch_size:INT=1", "LATENT"),
    "FrameInterpolationModelLoader": ("model_name:COMBO", "INTERP_MODEL"),
    "GetImageSize": ("image:IMAGE", "width:INT height:INT batch_size:INT"),
    "GetVideoComponents": ("video:VIDEO", "images:IMAGE audio:AUDIO fps:FLOAT"),
    "ImageBatch": ("image1:IMAGE image2:IMAGE", "IMAGE"),
    "ImageFromBatch": ("image:IMAGE batch_index:INT=0 length:INT=1", "IMAGE"),
    "ImageScale": ("image:IMAGE upscale_method:COMBO width:INT=512 height:INT=512 crop:COMBO", "IMAGE"),
    "ImageToMask": ("image:IMAGE channel:COMBO", "MASK"),
    "KSampler": (
        "model:MODEL seed:INT=0 steps:INT=20 cfg:FLOAT=8.0 sampler_name:COMBO scheduler:COMBO positive:CONDITIONING negative:CONDITIONING"
        " latent_image:LATENT denoise:FLOAT=1.0",
        "LATENT",
    ),
    "LoadVideo": ("file:VIDEO_FILE", "VIDEO"),
    "LoraLoaderModelOnly": ("model:MODEL lora_name:COMBO strength_model:FLOAT=1.0", "MODEL"),
    "ModelSamplingSD3": ("model:MODEL shift:FLOAT=3.0", "MODEL"),
    "RandomNoise": ("noise_seed:INT=0", "NOISE"),
    "SamplerCustomAdvanced": (
        "noise:NOISE guider:GUIDER sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT",
        "output:LATENT denoised_output:LATENT",
    ),
    "SaveLatent": ("samples:LATENT filename_prefix:STRING=latents/ComfyUI", ""),
    "UNETLoader": ("unet_name:COMBO weight_dtype:COMBO", "MODEL"),
    "VAELoader": ("vae_name:COMBO", "VAE"),
}


def others(io: Any) -> list[Any]:
    """Schemas of ``COMFYUIS``, as far as a drawing needs them."""
    return [
        io.Schema(
            node_id=name,
            inputs=[input_of(io, *item.split(":")) for item in inputs.split()],
            outputs=[output_of(io, *item.split(":")) for item in outputs.split()],
        )
        for name, (inputs, outputs) in COMFYUIS.items()
    ]


def input_of(io: Any, name: str, kind: str) -> Any:
    """One input of ``COMFYUIS``: its name, and its type with the usual value."""
    kind, _, value = kind.partition("=")
    match kind:
        case "INT" | "FLOAT":
            return getattr(io, kind.title()).Input(name, default=json.loads(value))
        case "TEXT":
            return io.String.Input(name, multiline=True)
        case "COMBO" | "VIDEO_FILE":
            return io.Combo.Input(name, upload=io.UploadType.video if kind == "VIDEO_FILE" else None)
    return io.Custom(kind).Input(name)


def output_of(io: Any, *words: str) -> Any:
    """One output of ``COMFYUIS``: its type, with or without a name before it."""
    *name, kind = words
    return io.Custom(kind).Output(display_name=name[0] if name else None)


def widgets_of(item: Any, value: Any) -> list[Any]:
    """What the editor stores for one input that can be typed in: its value, and that of the control beside it."""
    control = getattr(item, "control_after_generate", None)
    if control or (control is None and item.get_io_type() == "INT" and item.id in SEEDS):
        return [value, "fixed"]
    return [value, "image"] if getattr(item, "upload", None) else [value]


def is_widget(item: Any) -> bool:
    """Whether an input can be typed in."""
    return item.get_io_type() in WIDGETS and not getattr(item, "force_input", None)


def usual(item: Any) -> Any:
    """What the editor shows in a new node."""
    options = getattr(item, "options", None)
    return item.default if item.default is not None else options[0] if options else None


class Drawing:
    """One workflow on its way to the editor's format.

    Args:
        workflow: API format.
        known: schemas by class.

    Raises:
        ValueError: the workflow has a node or a link that the schemas do not know.
    """

    def __init__(self, workflow: Mapping[str, Any], known: Mapping[str, Any]):
        metas = [node.get("_meta", {}) for node in workflow.values() if isinstance(node, dict)]
        self.note = "\n\n".join(meta["note"] for meta in metas if "note" in meta)
        self.nodes = {id: node for id, node in workflow.items() if not id.startswith("_")}
        strange = [f"{id} ({node['class_type']})" for id, node in self.nodes.items() if node["class_type"] not in known]
        if strange:
            raise ValueError(f"no schema is known for node {strange[0]}: add it to others()")
        self.schemas = {id: known[node["class_type"]] for id, node in self.nodes.items()}
        self.numbers = {id: number for number, id in enumerate(self.nodes, start=1)}
        self.links: list[list[Any]] = []
        self.outgoing: dict[tuple[str, int], list[int]] = {}

    def json(self) -> dict[str, Any]:
        """The editor's format, version 0.4."""
        places = self._places()
        drawn = [self._node(id, order, places[id]) for order, id in enumerate(self.nodes)]
        for node, id in zip(drawn, self.nodes, strict=True):
            for slot, output in enumerate(node["outputs"]):
                output["links"] = self.outgoing.get((id, slot))
        if self.note:
            drawn.append(self._note(len(drawn)))
        return {
            "last_node_id": len(drawn),
            "last_link_id": len(self.links),
            "nodes": drawn,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _sources(self, id: str) -> list[str]:
        return [value[0] for value in self.nodes[id]["inputs"].values() if isinstance(value, list)]

    def _depths(self) -> dict[str, int]:
        """Column of every node: one more than the deepest it needs."""
        depths: dict[str, int] = {}

        def depth(id: str) -> int:
            if id not in depths:
                depths[id] = 1 + max((depth(source) for source in self._sources(id)), default=-1)
            return depths[id]

        return {id: depth(id) for id in self.nodes}

    def _places(self) -> dict[str, tuple[int, int]]:
        tops: dict[int, int] = {}
        places = {}
        for id, column in self._depths().items():
            places[id] = (column * (WIDTH + GAP_X), tops.get(column, 0))
            tops[column] = places[id][1] + self._height(id) + GAP_Y
        return places

    def _height(self, id: str) -> int:
        schema = self.schemas[id]
        sockets = max(sum(not is_widget(item) for item in schema.inputs), len(schema.outputs))
        rows = sockets + sum(len(widgets_of(item, None)) for item in schema.inputs if is_widget(item))
        tall = sum(3 * ROW for item in schema.inputs if getattr(item, "multiline", False))
        kind = self.nodes[id]["class_type"]
        return HEAD + ROW * rows + tall + (PICTURE if kind in SHOWING else CANVASES.get(kind, 0))

    def _node(self, id: str, order: int, place: tuple[int, int]) -> dict[str, Any]:
        node, schema = self.nodes[id], self.schemas[id]
        inputs, values = [], []
        for item in schema.inputs:
            given = node["inputs"].get(item.id)
            linked = isinstance(given, list)
            if is_widget(item):
                values += widgets_of(item, usual(item) if linked or given is None else given)
            if linked or not is_widget(item):
                socket = {
                    "name": item.id,
                    "type": item.get_io_type(),
                    "link": self._link(given, id, len(inputs)) if linked else None,
                }
                inputs.append(
                    socket | ({"widget": {"name": item.id}} if is_widget(item) else {}) | ({"shape": 7} if item.optional else {})
                )
        title = node.get("_meta", {}).get("title")
        return {
            "id": self.numbers[id],
            "type": node["class_type"],
            **({"title": title} if title else {}),
            "pos": list(place),
            "size": [WIDTH, self._height(id)],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": item.display_name or item.get_io_type(), "type": item.get_io_type(), "links": None, "slot_index": slot}
                for slot, item in enumerate(schema.outputs)
            ],
            "properties": {"Node name for S&R": node["class_type"]},
            "widgets_values": values,
        }

    def _link(self, source: Sequence[Any], target: str, slot: int) -> int:
        id, output = str(source[0]), int(source[1])
        if id not in self.nodes or output >= len(self.schemas[id].outputs):
            raise ValueError(f"node {target} is linked to output {output} of node {id}, which is not there")
        number = len(self.links) + 1
        kind = self.schemas[id].outputs[output].get_io_type()
        self.links.append([number, self.numbers[id], output, self.numbers[target], slot, kind])
        self.outgoing.setdefault((id, output), []).append(number)
        return number

    def _note(self, order: int) -> dict[str, Any]:
        height = HEAD + ROW * (len(self.note) // 42 + 2)
        return {
            "id": order + 1,
            "type": "Note",
            "pos": [-WIDTH - GAP_X, 0],
            "size": [WIDTH, height],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {"text": ""},
            "widgets_values": [self.note],
            "color": "#432",
            "bgcolor": "#653",
        }


def text_of(workflow: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The file for the editor."""
    return json.dumps(Drawing(workflow, known).json(), indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write all files, or with ``--check`` name those that are out of date. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw the workflows of workflows/api for ComfyUI's editor.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args(argv).check
    known = schemas()
    stale = []
    for path in sorted(FOLDER.glob("api/*.json")):
        target = FOLDER / path.name
        text = text_of(json.loads(path.read_text(encoding="utf-8")), known)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            stale.append(target.name)
            if not check:
                partial = target.with_name(f".{target.name}.partial")
                partial.write_text(text, encoding="utf-8", newline="\n")
                partial.replace(target)
    if stale:
        sys.stderr.write(f"{'out of date' if check else 'written'}: {', '.join(stale)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
