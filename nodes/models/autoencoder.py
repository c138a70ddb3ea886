"""Autoencoders of this pack's own, as VAEs."""

from ... import host
from ...modules.checkpoints.autoencoder import AutoencoderVae, load_autoencoder
from ..node import LongTakeNode
from .models import CATEGORY

io = host.io


class LongTakeLoadAutoencoder(LongTakeNode):
    """A VAE from a file of Train Autoencoder."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLoadAutoencoder",
            display_name="Load Autoencoder",
            category=CATEGORY,
            description="Loads an autoencoder that Train Autoencoder made, as a VAE. A video model that was trained with one holds it in"
            " its own file, and Load Video Model gives it.",
            inputs=[
                io.Combo.Input(
                    "autoencoder",
                    options=host.files("autoencoders"),
                    tooltip="The file lies in models/longtake_autoencoders, or is bundled with the pack.",
                )
            ],
            outputs=[io.Vae.Output(tooltip="The VAE goes to Train Video Model, VAE Encode or VAE Decode.")],
        )

    @classmethod
    def fingerprint_inputs(cls, autoencoder: str) -> str:
        stat = host.file("autoencoders", autoencoder).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(cls, autoencoder: str) -> "io.NodeOutput":
        return io.NodeOutput(AutoencoderVae(load_autoencoder(host.file("autoencoders", autoencoder)).to(host.device())))
