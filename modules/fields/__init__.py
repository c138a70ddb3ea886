"""How a setting says all about itself, once: ``setting.py``."""
