"""What clips are noised with: noise levels of models, and noise that depends on a seed and a frame only."""
