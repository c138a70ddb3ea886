"""What leads a clip: keyframes, SparseCtrl, image prompts, first frames, cameras, hints."""
