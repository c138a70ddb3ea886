"""AnimateDiff: motion modules, their LoRAs, windows and cameras."""
