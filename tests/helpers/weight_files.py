"""What tests of files of weights share: writing one, comparing what was read, spoiling it, and what may be said of it."""

import torch
from pack.modules.checkpoints.formats import SLOT
from safetensors.torch import save_file


def saved(path, state, metadata=None):
    state = {key: value.clone() for key, value in state.items()}
    torch.save(state, path) if path.suffix == ".ckpt" else save_file(state, path, metadata)
    return path


def same_weights(given, wanted):
    assert given.keys() == wanted.keys()
    assert all(given[key].dtype == wanted[key].dtype and torch.equal(given[key], wanted[key]) for key in wanted)


def weights_of(state):
    """A canonical state without what is not a temporal transformer's weight."""
    return {key: value for key, value in state.items() if SLOT.match(key) and not key.endswith(".pe")}


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and "Traceback" not in text, text
    return text


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def without_slot(slot):
    return lambda state: {name: value for name, value in state.items() if not name.startswith(slot)}


def other_positions(state):
    return {key: value + 0.5 if key.endswith(".pe") else value for key, value in state.items()}
