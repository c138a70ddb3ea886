"""What hangs on a MODEL of ComfyUI."""
