"""What passes from node to node: each is the host's own, so nodes hand them on and never look inside."""

from typing import Any, TypeAlias

Model: TypeAlias = Any  # MODEL
Vae: TypeAlias = Any  # VAE
Conditioning: TypeAlias = Any  # CONDITIONING
Latent: TypeAlias = dict[str, Any]  # LATENT; its "samples" are ``f c h w``
