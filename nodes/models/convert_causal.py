"""The authors' checkpoints of causal Wan models as files that ComfyUI loads."""

import json
from dataclasses import asdict
from typing import Any

import torch

from ... import host
from ...modules.checkpoints.causal import CORES_MARK, METADATA, WEIGHTS, merge_lora, read_causal, read_lora
from ...modules.disk.file_names import check_name, check_writable
from ...modules.disk.tensor_file import save_tensors
from ...modules.fields.setting import Setting
from ...modules.sampling.causal_systems import SYSTEMS, CausalSettings
from ..fields import inputs_of, widget
from ..node import LongTakeNode
from .models import CATEGORY

io = host.io
NONE, AS_IT_IS = "none", "as in the file"
TYPES = {AS_IT_IS: None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class LongTakeConvertCausal(LongTakeNode):
    """A causal Wan checkpoint as a file for Load Diffusion Model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeConvertCausal",
            display_name="Convert Causal Checkpoint",
            category=CATEGORY,
            description="Writes the authors' checkpoint of a causal Wan model (Self-Forcing, Causal-Forcing, LongLive with its LoRA) as a"
            " safetensors file that Load Diffusion Model reads, into models/diffusion_models. Nothing in the checkpoint is run.",
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=host.files("diffusion_models"),
                    tooltip="The checkpoint is a file in models/diffusion_models, as its authors saved it.",
                ),
                widget(
                    "name",
                    "causal_wan",
                    Setting(
                        "The name is that of the new file, without its ending; one that is there already is never written over."
                    ),
                ),
                *inputs_of(CausalSettings, "system"),
                widget(
                    "weights", next(iter(WEIGHTS)), Setting("The weights say which of a checkpoint's are taken.", menu=WEIGHTS)
                ),
                widget(
                    "dtype",
                    AS_IT_IS,
                    Setting(
                        "The dtype is that of the numbers in the new file; bf16 takes half as much room as fp32.",
                        menu=tuple(TYPES),
                    ),
                ),
                io.Combo.Input(
                    "lora",
                    options=[NONE, *host.files("loras")],
                    default=NONE,
                    tooltip="The LoRA is added to the weights, such as LongLive's lora.pt; it lies in models/loras.",
                ),
                widget(
                    "lora_strength",
                    1.0,
                    Setting(
                        "The LoRA's strength is the factor that it is added with; 1 is as published.",
                        least=-10.0,
                        most=10.0,
                        step=0.05,
                    ),
                ),
                widget(
                    "mark_for_core",
                    False,
                    Setting(
                        "The mark lets ComfyUI's own SamplerARVideo run the file; Causal Take needs none, and models with 48 channels"
                        " do not load with it.",
                        advanced=True,
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report says what was read and where the new file is.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        ckpt_name: str,
        name: str,
        system: str,
        weights: str,
        dtype: str,
        lora: str,
        lora_strength: float,
        mark_for_core: bool,
    ) -> "io.NodeOutput":
        check_name(name)
        folder = host.model_directory("diffusion_models")
        path, kind = folder / f"{name}.safetensors", TYPES[dtype]
        if path.exists():
            raise ValueError(f"there is a file {path} already: load it with Load Diffusion Model, or give another name")
        check_writable(folder)
        source = host.file("diffusion_models", ckpt_name)
        state = read_causal(source, weights)
        said = f"{source.name}: {len(state)} weights"
        if mark_for_core and state["patch_embedding.weight"].shape[1] != 16:
            raise ValueError(
                f"{source.name} has {state['patch_embedding.weight'].shape[1]} channels, and ComfyUI loads marked files with 16 alone:"
                " turn mark_for_core off"
            )
        if lora != NONE:
            added = read_lora(host.file("loras", lora))
            state = merge_lora(state, added, lora_strength, kind, host.Progress(len(added)).update)
            said += f", LoRA {lora} of {len(added)} layers at {lora_strength:g} merged"
        host.check_interrupt()
        save_tensors(path, state, metadata(system, mark_for_core), kind)
        report = f"{said}; written to {path} ({path.stat().st_size / 1e9:.2f} GB)"
        return io.NodeOutput(report, ui=host.ui.PreviewText(report))


def metadata(system: str, mark_for_core: bool) -> dict[str, Any]:
    """What a file says of itself: the system that it was trained for, and ComfyUI's mark where it is asked for."""
    return {METADATA: json.dumps({"system": system, **asdict(SYSTEMS[system])})} | (CORES_MARK if mark_for_core else {})
