"""Small workflows: two files made of one picture, and a take."""

import json

NODES = {
    "1": {"class_type": "LoadImage", "_meta": {"title": "Cat"}, "inputs": {"image": "cat.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b"}},
}


def written(path, content):
    """The name of a file with this content, as JSON where it is no text."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def take(model, frames):
    """A workflow of this pack's nodes with the tiny model."""
    return {
        "_note": "for people",
        "1": {"class_type": "LongTakeLoadVideoModel", "inputs": {"model_name": model, "attention_window": 0}},
        "2": {"class_type": "LongTakeLabelPrompt", "inputs": {"model": ["1", 0], "prompt": "red disc"}},
        "3": {
            "class_type": "LongTakeRollout",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "cfg": 1.0,
                "seed": 5,
                "frames": frames,
                "schedule": "pyramid",
                "steps": 4,
                "lag": 1.0,
                "block": 1,
                "window": 0,
                "eta": 0.0,
                "context_noise": 0.1,
                "context_noise_kind": "noise",
                "context_noise_frames": "all",
                "order": "euler",
                "sink_frames": 0,
            },
        },
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 1]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "take"}},
    }
