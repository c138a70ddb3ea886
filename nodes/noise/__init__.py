"""What a clip starts from."""
