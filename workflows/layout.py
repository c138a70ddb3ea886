"""Where the nodes of a workflow stand in the editor: in groups from left to right, each in columns, as in ComfyUI's own templates."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Workflow = Mapping[str, Mapping[str, Any]]
WIDTH, GAP, PAD, TITLE = 330, 40, 20, 50
WIDEST = 2500  # so that a whole graph can be read in a window
LOWEST, STEP = 900, 100  # a column's height to begin with, and what is added until everything is narrow enough

MODELS, SHOWS, SAMPLING, RESULT = "Models", "What it shows", "Sampling", "Result"
COLORS = {MODELS: "#3f789e", SHOWS: "#8a6d3b", SAMPLING: "#5b5b9e", RESULT: "#4f7f4f"}
CLIPS = "LONGTAKE_CLIPS"
OF_MODELS = {
    "MODEL",
    "CLIP",
    "VAE",
    "CONTROL_NET",
    "CLIP_VISION",
    "INTERP_MODEL",
    "LONGTAKE_IMAGE_PROMPT",
    "LONGTAKE_SPARSE_CONTROL",
}
OF_MODELS |= {"LONGTAKE_MOTION_MODULE", "LONGTAKE_MOTION_KEYFRAMES"}
OF_SAMPLING = {
    "SAMPLER",
    "SIGMAS",
    "NOISE",
    "GUIDER",
    "LATENT",
    "LONGTAKE_NOISE_LEVELS",
    "LONGTAKE_GUIDANCE",
    "LONGTAKE_TRAINING_OPTIONS",
}
SAMPLED_BY = {"MODEL", "GUIDER"}


@dataclass(frozen=True)
class Kind:
    """What a node is, as far as its place goes.

    Attributes:
        takes: types of its inputs.
        gives: types of its outputs.
        saves: whether it writes files or shows something.
        random: whether it has a seed or takes noise.
    """

    takes: frozenset[str]
    gives: frozenset[str]
    saves: bool = False
    random: bool = False

    @property
    def samples(self) -> bool:
        """Whether it samples or trains."""
        trains = CLIPS in self.takes and CLIPS not in self.gives
        return trains or (self.random and bool(self.takes & SAMPLED_BY) and ("LATENT" in self.gives or self.saves))


@dataclass(frozen=True)
class Group:
    """A titled frame around nodes; left, top, width and height in the editor's pixels."""

    title: str
    left: int
    top: int
    width: int
    height: int

    def json(self, number: int) -> dict[str, Any]:
        """As the editor stores it."""
        box = [self.left, self.top, self.width, self.height]
        return {"id": number, "title": self.title, "bounding": box, "color": COLORS[self.title], "font_size": 24, "flags": {}}


def sources(node: Mapping[str, Any]) -> list[str]:
    """The nodes that one is linked to."""
    return [str(value[0]) for value in node["inputs"].values() if isinstance(value, list)]


def depths(workflow: Workflow) -> dict[str, int]:
    """Id -> one more than the deepest that it needs."""
    found: dict[str, int] = {}

    def depth(id: str) -> int:
        if id not in found:
            found[id] = 1 + max((depth(source) for source in sources(workflow[id])), default=-1)
        return found[id]

    return {id: depth(id) for id in workflow}


def stages(workflow: Workflow, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Id -> the title of its group. Whatever comes after all sampling is result; what comes before goes by what it gives."""
    order = sorted(workflow, key=depths(workflow).get)  # type: ignore[arg-type]
    samples = {id for id in workflow if kinds[id].samples}
    after: set[str] = set()
    for id in order:
        if any(source in samples or source in after for source in sources(workflow[id])):
            after.add(id)
    before: set[str] = set()
    for id in reversed(order):
        if id in samples or id in before:
            before.update(sources(workflow[id]))

    def stage(id: str) -> str:
        gives = kinds[id].gives
        if id in samples or (id in after and id in before):
            return SAMPLING
        if id in after or kinds[id].saves:
            return RESULT
        if gives & OF_MODELS:
            return MODELS
        return SAMPLING if gives & OF_SAMPLING else SHOWS

    return {id: stage(id) for id in workflow}


def columns(ids: Collection[str], height: Callable[[str], int], limit: int) -> list[list[str]]:
    """Nodes from top to bottom, in as many columns as it takes; a column is as high as the limit, or one node."""
    made: list[list[str]] = []
    filled = limit
    for id in ids:
        if filled + height(id) > limit:
            made.append([])
            filled = 0
        made[-1].append(id)
        filled += height(id) + GAP
    return made


def placed(
    workflow: Workflow, kinds: Mapping[str, Kind], height: Callable[[str], int], left: int = 0
) -> tuple[dict[str, tuple[int, int]], list[Group]]:
    """Where every node stands, and the groups around them.

    Args:
        workflow: API format.
        kinds: what each node is.
        height: of a node, in pixels, its title left out.
        left: where the first group begins.

    Returns:
        places: id -> left and top.
        groups: from left to right; together at most ``WIDEST`` wide.
    """
    deep, where = depths(workflow), stages(workflow, kinds)
    members = {title: sorted((id for id in workflow if where[id] == title), key=lambda id: deep[id]) for title in COLORS}
    tallest = LOWEST
    while True:
        stacks = {title: columns(ids, height, tallest) for title, ids in members.items() if ids}
        wide = sum(len(stack) * (WIDTH + GAP) + PAD for stack in stacks.values())
        if wide <= WIDEST - max(0, -left):
            break
        tallest += STEP
    places: dict[str, tuple[int, int]] = {}
    groups = []
    for title, stack in stacks.items():
        bottom = 0
        for number, column in enumerate(stack):
            top = 0
            for id in column:
                places[id] = (left + PAD + number * (WIDTH + GAP), top)
                top += height(id) + GAP
            bottom = max(bottom, top)
        width = len(stack) * (WIDTH + GAP)
        groups.append(Group(title, left, -TITLE - PAD, width, bottom + TITLE + PAD))
        left += width + PAD
    return places, groups
