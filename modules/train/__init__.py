"""Training: the same model run backwards."""
