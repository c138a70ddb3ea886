"""Node schemas without ComfyUI: what ``comfy_api.latest.io`` offers, as far as this pack uses it.

The names, arguments and dictionaries are ComfyUI's, so a node file cannot tell the difference; a test compares every schema with the
real one. An argument that some supported ComfyUI does not have is not here either. To add a type, name it in the list at the end.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .sockets import *  # noqa: F403  one namespace, as ComfyUI's
from .sockets import Custom


class Hidden(str, Enum):
    """What a node may ask to be told without an input."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


@dataclass(frozen=True)
class HiddenHolder:
    """The answers to ``Hidden``."""

    unique_id: str | None = None
    prompt: dict[str, Any] | None = None
    extra_pnginfo: dict[str, Any] | None = None


class NodeOutput:
    """What ``execute`` returns: the values of the outputs, and something to show."""

    def __init__(self, *args: Any, ui: Any = None):
        self.args, self.ui = args, ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values, or None when there are none."""
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        """One of the values."""
        return self.args[index]


@dataclass
class Schema:
    """All that is known of a node before it runs."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    not_idempotent: bool = False

    def validate(self) -> None:
        """Refuse an id that is given twice.

        Raises:
            ValueError: which one.
        """
        counts = Counter(item.id for item in (*self.inputs, *self.outputs) if item.id is not None)
        twice = [id for id, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"the schema of {self.node_id} has two inputs or outputs called {twice[0]!r}: ids must be unique")

    def finalize(self) -> None:
        """Fill in what follows from the rest: hidden inputs of output nodes, ids of outputs."""
        self.inputs, self.outputs = list(self.inputs or []), list(self.outputs or [])
        wanted = [Hidden.prompt, Hidden.extra_pnginfo] if self.is_output_node else []
        given = list(self.hidden or [])
        self.hidden = given + [item for item in wanted if item not in given]
        for index, output in enumerate(self.outputs):
            output.id = output.id or f"_{index}_{output.io_type}_"


class ComfyNode:
    """A node is a class that is never instantiated: a schema and a function."""

    hidden: HiddenHolder | None = None

    @classmethod
    def define_schema(cls) -> Schema:
        """Override: the node's schema."""
        raise NotImplementedError(f"{cls.__name__} has no define_schema")

    @classmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        """Override: the node's work."""
        raise NotImplementedError(f"{cls.__name__} has no execute")

    @classmethod
    def validate_inputs(cls, **kwargs: Any) -> bool | str:
        """Override if need be: True, or what is wrong with the inputs that are known before anything runs."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> Any:
        """Override if need be: a value that changes when the node must run again though its inputs are the same."""
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802  ComfyUI's name
        """The schema, checked and complete; made anew each time, since menus list files."""
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema


class ComfyExtension:
    """What a pack gives ComfyUI."""

    async def on_load(self) -> None:
        """Called once, before the nodes are asked for."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        """Override: the pack's nodes."""
        raise NotImplementedError


AnyType = Custom("*")
Audio = Custom("AUDIO")
Clip = Custom("CLIP")
Conditioning = Custom("CONDITIONING")
ControlNet = Custom("CONTROL_NET")
Guider = Custom("GUIDER")
Image = Custom("IMAGE")
Latent = Custom("LATENT")
Mask = Custom("MASK")
Model = Custom("MODEL")
Noise = Custom("NOISE")
Sampler = Custom("SAMPLER")
Sigmas = Custom("SIGMAS")
Vae = Custom("VAE")
Video = Custom("VIDEO")
