"""The spatial U-Net, and gradient checkpointing for any network."""
