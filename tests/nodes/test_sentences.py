"""Every text that a node shows is whole sentences: its description, and the tooltip of each input and output."""

import pack
import pack.nodes
import pytest
from sentences import sentences, wrong_with

NODES = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in pack.nodes.node_classes()}

# as tooltips once were
FRAGMENTS = (
    "Of all noise.",
    "Guidance scale; 1 is off and twice as fast.",
    "Frames that the model sees at once; 0 is the length it was trained with.",
    "What to show; anything, where nothing is connected.",
    "From Clip Folder, Clips From Images or Shapes Clips.",
    "Whether they come after the clip or before it.",
    "The model's VAE.",
    "How it went.",
    "Where a clip is cut out of a frame of another shape.",
    "Length of the clip, known frames included.",
    "Show the last frame of every batch while the take runs.",
    "A model trained with a noise level per frame.",
    "Up or down, by any ratio.",
    "the seed decides all noise.",
    "The seed decides all noise",
)
WHOLE = (
    "The seed is that of all noise; a frame's noise depends on the seed and the frame's number alone.",
    "A clip has so many frames; 1 trains on single pictures.",
    "0 is off.",
    "Connect them or keyframes, not both.",
)


def prose(item) -> str:
    """A tooltip without the names of a menu's entries, which stand before their sentences."""
    lines = []
    for line in item.tooltip.splitlines():
        entry = next((f"{name}: " for name in getattr(item, "options", None) or [] if line.startswith(f"{name}: ")), "")
        lines.append(line.removeprefix(entry))
    return "\n".join(lines)


@pytest.mark.parametrize("name", NODES)
def test_a_node_speaks_in_sentences(name):
    schema = NODES[name]
    texts = {f"input {item.id}": prose(item) for item in schema.inputs}
    texts |= {f"output {item.display_name or item.get_io_type()}": item.tooltip or "" for item in schema.outputs}
    wrong = {what: found for what, text in texts.items() if (found := wrong_with(text))}
    assert wrong == {}
    assert wrong_with(schema.description, describes=True) == []


@pytest.mark.parametrize("text", FRAGMENTS)
def test_a_fragment_is_found(text):
    assert wrong_with(text)


@pytest.mark.parametrize("text", WHOLE)
def test_a_sentence_is_one(text):
    assert wrong_with(text) == []


def test_a_description_may_begin_with_what_a_node_does():
    assert wrong_with("Reads a file. Works with KSampler.", describes=True) == []
    assert wrong_with("Reads a file.") and wrong_with("A file to read.", describes=True)


def test_sentences_are_told_apart():
    assert sentences("It is 0.5. Then it is 1.\nIt ends.") == ["It is 0.5.", "Then it is 1.", "It ends."]
