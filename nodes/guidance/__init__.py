"""What is done around the model."""
