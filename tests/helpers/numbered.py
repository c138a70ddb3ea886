"""Footage that counts what is read of it, and data sets of such."""

import weakref
from dataclasses import replace

import torch
from pack.modules.data.clips import ClipDataset
from pack.modules.data.footage import Footage, Unreadable
from pack.modules.data.report import Report
from pack.modules.data.settings import ClipSettings
from pack.modules.data.source import ClipSource, Found
from pack.modules.data.timing import even

SMALL = ClipSettings(frames=4, stride=2, width=32, height=24, multiple=8, missing_captions="train without")


class Numbers(Footage):
    """Frames whose every pixel is their number divided by 1000; counts what it gives."""

    kind = "numbers"

    def __init__(self, count, name="numbers", size=(24, 32), fps=24.0, broken=()):
        self.name, self.timing, self.broken = name, even(count, fps), set(broken)
        self.height, self.width = size
        self.given, self.alive, self.most = [], set(), 0

    def pictures(self, indices):
        assert list(indices) == sorted(set(indices))
        for index in indices:
            if index in self.broken:
                raise Unreadable(f"frame {index} of {self.name} is damaged")
            picture = torch.full((self.height, self.width, 3), index / 1000)
            self.given.append(index)
            self.alive.add(index)
            weakref.finalize(picture, self.alive.discard, index)
            self.most = max(self.most, len(self.alive))
            yield picture
            del picture

    def digest(self):
        return f"{self.name} {self.count}"


def dataset(*footage, captions=None, **settings):
    captions = captions or [f"clip {number}" for number in range(len(footage))]
    sources = [ClipSource.of(item, item.name, text) for item, text in zip(footage, captions, strict=True)]
    return ClipDataset(Found(sources, Report(found=len(sources))), replace(SMALL, **settings))


def several(count=7, length=30, **settings):
    return dataset(*(Numbers(length, f"n{number}") for number in range(count)), **settings)


def seen(batch):
    return [(clip.source.name, clip.take) for clip in batch.clips]
