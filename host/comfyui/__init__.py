"""The port on ComfyUI: ``port`` has its names. Only files in this folder import anything of ComfyUI's.

Nothing of ComfyUI is imported with the folder, so ``boot`` can be imported on a machine without it.
"""
