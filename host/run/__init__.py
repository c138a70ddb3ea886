"""What runs workflows from outside: finding ComfyUI, reading and changing workflows, progress in a terminal, a server elsewhere.

Nothing here imports ComfyUI or torch.
"""
