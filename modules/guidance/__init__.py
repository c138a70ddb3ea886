"""What is done around the model in a call: history, reconstruction and goals."""
