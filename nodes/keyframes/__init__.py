"""Pictures at their times: keyframes, controls, hints."""
