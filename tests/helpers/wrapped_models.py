"""Models as ComfyUI loads and wraps them."""

import copy
from contextlib import contextmanager


@contextmanager
def loaded(model):
    """The base model of a MODEL, loaded as for sampling."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    yield model.model
    model.detach()


def wrapped(model):
    """Transformer options as a sampling has them: with the MODEL's wrappers."""
    import comfy.patcher_extension

    options = copy.copy(model.model_options["transformer_options"])
    comfy.patcher_extension.merge_nested_dicts(options.setdefault("wrappers", {}), model.wrappers, copy_dict1=False)
    return options
