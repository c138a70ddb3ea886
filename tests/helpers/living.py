"""How much memory tensors take."""

import gc

import torch


def living_bytes():
    """Bytes of all tensors that are alive."""
    gc.collect()
    real = torch.Tensor, torch.nn.Parameter  # other tests leave simulated ones, which have no bytes
    tensors = [item for item in gc.get_objects() if type(item) in real and item.device.type != "meta"]
    return sum(tensor.untyped_storage().nbytes() for tensor in {tensor.data_ptr(): tensor for tensor in tensors}.values())
