"""Training, and clips to train on."""
