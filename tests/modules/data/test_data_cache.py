"""Latents and texts on disk: never another's, never half of one."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from clip_files import caption, grey_frames, write_sequence
from pack.modules.data.cache import EncodedClips, TensorCache, weights_key
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.procedural import moving_shapes
from pack.modules.data.settings import ClipSettings
from pack.modules.disk import atomic
from pack.modules.disk.file_names import check_writable

SMALL = ClipSettings(frames=3, stride=2, width=32, height=24, multiple=8, variants=2)


class Encoders:
    """A VAE and a text encoder that count what they are given."""

    def __init__(self, scale=1.0):
        self.scale, self.videos, self.texts = scale, 0, 0

    def video(self, pixels):
        self.videos += 1
        return torch.nn.functional.avg_pool2d(pixels, 8) * self.scale

    def text(self, words):
        self.texts += 1
        return {"cond": torch.full((1, 4), float(len(words))), "pooled": torch.tensor([float(len(words))])}


def clips(folder, change=0, name="walk", words="a cat", count=2):
    for number in range(count):
        content = grey_frames(9, seed=number)
        content[4, 3, 3] ^= change
        caption(write_sequence(folder / f"{name}{number}", content), words)
    return find_clips(folder)


def encoded(found, cache, encoders, settings=SMALL, video_key="vae", text_key="clip", **options):
    data = found if isinstance(found, ClipDataset) else ClipDataset(found, settings)
    return EncodedClips(data, encoders.video, encoders.text, folder=cache, video_key=video_key, text_key=text_key, **options)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# What is made, and what is read


def test_a_batch_is_what_the_encoders_make_of_the_clips(tmp_path):
    data = ClipDataset(clips(tmp_path / "in"), SMALL)
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        through = encoded(data, cache, encoders := Encoders(0.5), motion=True)
        for step in range(3):
            pixels, batch = data.batch(step, 2), through.batch(step, 2)
            expected = torch.stack([encoders.video(clip.pixels) for clip in pixels.clips])
            assert torch.equal(batch.latents, expected)
            assert batch.takes == tuple(clip.take for clip in pixels.clips)
            assert batch.motion == pytest.approx([clip.motion for clip in pixels.clips])
            assert [float(text["pooled"]) for text in batch.texts] == [5.0, 5.0]
            assert batch.texts[0]["cond"].shape == (1, 4)


def test_what_is_in_the_cache_is_not_made_again(tmp_path):
    found = clips(tmp_path / "in")
    first = encoded(found, tmp_path / "cache", encoders := Encoders())
    assert list(first.fill()) == [(number, 4) for number in range(1, 5)]
    assert (encoders.videos, encoders.texts) == (4, 1)
    batches = [first.batch(step, 2) for step in range(6)]
    assert (encoders.videos, encoders.texts) == (4, 1)
    again = encoded(found, tmp_path / "cache", encoders := Encoders())
    assert all(torch.equal(again.batch(step, 2).latents, batch.latents) for step, batch in enumerate(batches))
    assert (encoders.videos, encoders.texts) == (0, 0)
    assert again.report() == (
        f"Latents: 12 read from {tmp_path / 'cache' / 'latents'}, 0 made. Texts: 12 read from {tmp_path / 'cache' / 'texts'}, 0 made."
    )


def made(tmp_path, *args, **options):
    """How many videos are encoded to fill the cache that a first run has filled."""
    through = encoded(*args, tmp_path / "cache", encoders := Encoders(), **options)
    list(through.fill())
    return encoders.videos


def test_what_changes_is_made_again(tmp_path):
    found = clips(tmp_path / "in")
    assert made(tmp_path, found) == 4
    assert made(tmp_path, found) == 0
    assert made(tmp_path, clips(tmp_path / "elsewhere", name="renamed")) == 0, "the same files under other names"
    assert made(tmp_path, clips(tmp_path / "changed", change=1)) == 4, "one bit of one frame"
    assert made(tmp_path, found, video_key="another vae") == 4
    assert made(tmp_path, found, settings=replace(SMALL, width=24)) == 4
    assert made(tmp_path, found, settings=replace(SMALL, stride=1)) == 4
    assert made(tmp_path, found, motion=True) == 4
    assert made(tmp_path, clips(tmp_path / "in", words="another caption")) == 0, "pictures do not depend on words"
    assert made(tmp_path, found, text_key="another text encoder") == 0
    assert made(tmp_path, found) == 0


def test_texts_are_known_by_their_words_and_encoder(tmp_path):
    found = clips(tmp_path / "in")
    one = encoded(found, tmp_path / "cache", encoders := Encoders())
    for words in ("a cat", "", "a cat", "größer 猫", ""):
        assert float(one.text(words)["pooled"]) == len(words)
    assert encoders.texts == 3
    encoded(found, tmp_path / "cache", encoders := Encoders(), text_key="another").text("a cat")
    assert encoders.texts == 1


def test_tensors_come_back_as_they_were(tmp_path):
    cache = TensorCache(tmp_path, "vae")
    tensors = {
        "half": torch.randn(3, 4).bfloat16(),
        "view": torch.arange(12).reshape(3, 4).T,
        "number": torch.tensor(2.5),
        "grad": torch.nn.Parameter(torch.randn(2)),
    }
    for _ in range(2):
        back = cache.get("key", lambda: tensors)
        for name, value in tensors.items():
            assert torch.equal(back[name], value.detach())
            assert back[name].dtype == value.dtype
            assert not back[name].requires_grad
    assert (cache.hits, cache.misses) == (1, 1)


# What is half there


def killed_while_writing(folder):
    """Another process writes an entry, and is killed when half of it is on the disk."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this machine")
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]

    def half(path):
        with path.open("rb+") as file:
            file.truncate(path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        atomic.file_to_disk = half
        TensorCache(folder, "vae").get("key", lambda: {"latents": torch.ones(4, 8)})
    finally:
        os._exit(0)


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_used(tmp_path):
    assert os.WTERMSIG(killed_while_writing(tmp_path)) == signal.SIGKILL
    (left,) = files(tmp_path)
    assert left.name.startswith(".") and left.name.endswith(".partial")
    cache = TensorCache(tmp_path, "vae")
    assert not cache.holds("key")
    assert torch.equal(cache.get("key", lambda: {"latents": torch.zeros(4, 8)})["latents"], torch.zeros(4, 8))
    assert (cache.hits, cache.misses, cache.damaged) == (0, 1, 0)
    assert left.exists(), "it may be another process that still writes"
    os.utime(left, (time.time() - 7 * 86400,) * 2)
    TensorCache(tmp_path, "vae")
    assert not left.exists(), "but not after a week"


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_made_again(part, tmp_path):
    cache = TensorCache(tmp_path, "vae")
    cache.get("key", lambda: {"latents": torch.ones(4, 8)})
    (path,) = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    again = TensorCache(tmp_path, "vae")
    assert torch.equal(again.get("key", lambda: {"latents": torch.ones(4, 8)})["latents"], torch.ones(4, 8))
    assert (again.hits, again.misses, again.damaged) == (0, 1, 1)
    assert again.text() == f"0 read from {tmp_path}, 1 made, 1 of them damaged"
    assert path.read_bytes() == content


def test_an_entry_under_another_s_name_is_not_used(tmp_path):
    TensorCache(tmp_path, "vae").get("key", lambda: {"latents": torch.ones(2)})
    (path,) = files(tmp_path)
    other = TensorCache(tmp_path, "another vae")
    target = other._path("key")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(path.read_bytes())
    assert torch.equal(other.get("key", lambda: {"latents": torch.zeros(2)})["latents"], torch.zeros(2))
    assert other.damaged == 1


def test_numbers_that_are_not_finite_are_not_kept(tmp_path):
    cache = TensorCache(tmp_path, "vae")
    with pytest.raises(
        ValueError, match="the latents came out with numbers that are not finite: run the model that makes them in"
    ):
        cache.get("key", lambda: {"latents": torch.tensor([1.0, float("nan")])})
    assert not files(tmp_path)


def test_an_encoder_that_fails_leaves_nothing(tmp_path):
    cache = TensorCache(tmp_path, "vae")

    def fail():
        raise MemoryError("no memory")

    with pytest.raises(MemoryError):
        cache.get("key", fail)
    assert not files(tmp_path)


def test_threads_that_write_the_same_entry(tmp_path):
    cache = TensorCache(tmp_path, "vae")
    gate = threading.Barrier(4)

    def make():
        gate.wait(10)
        return {"latents": torch.ones(1000)}

    threads = [threading.Thread(target=cache.get, args=("key", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(tmp_path)) == 1
    assert torch.equal(TensorCache(tmp_path, "vae").get("key", dict)["latents"], torch.ones(1000))


# What is refused


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(ValueError, match="nothing can be written to .*: choose another folder"):
            check_writable(folder)
        with pytest.raises(ValueError, match="nothing can be written to"):
            encoded(moving_shapes(1, 9, 32), folder, Encoders())
    check_writable(tmp_path / "new" / "one")
    assert not files(tmp_path / "new")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"settings": replace(SMALL, variants=0)},
            "clips that are cut anew every time cannot be cached: set variants to 1 or more",
        ),
        ({"video_key": ""}, "a cache needs to know the VAE and the text encoder"),
        ({"text_key": ""}, "a cache needs to know the VAE and the text encoder"),
    ],
)
def test_what_cannot_be_cached(options, sentence, tmp_path):
    encoders = Encoders()
    with pytest.raises(ValueError, match=sentence):
        encoded(moving_shapes(1, 9, 32), tmp_path / "cache", encoders, **options)
    assert encoders.videos == 0
    assert not (tmp_path / "cache").exists()


def test_without_a_cache():
    through = encoded(moving_shapes(2, 9, 32), None, Encoders(), settings=replace(SMALL, variants=0))
    assert through.batch(0, 2).latents.shape == (2, 3, 3, 3, 4)
    assert through.batch(0, 2).motion == ()
    assert through.report() == "No cache."
    with pytest.raises(ValueError, match="there is no cache to fill: give a folder for it"):
        next(through.fill())


def test_a_damaged_clip_is_passed_over(tmp_path):
    found = clips(tmp_path / "in", count=3)
    for path in (tmp_path / "in" / "walk1").iterdir():
        path.write_bytes(b"broken")
    through = encoded(found, tmp_path / "cache", encoders := Encoders())
    list(through.fill())
    assert encoders.videos == 4
    batches = [through.batch(step, 3) for step in range(4)]
    assert {take.source for batch in batches for take in batch.takes} <= {0, 2}
    assert encoders.videos == 4
    assert list(through.dataset.report.passed_over) == ["walk1"]
    assert "  walk1: " in through.report(), "a training's own report says so"


# Who made it


def test_weights_are_known_by_all_that_they_are():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).bfloat16(), "c": torch.tensor(4)}
    key = weights_key(state)
    assert weights_key(dict(reversed(state.items()))) == key
    assert weights_key({name: value.clone() for name, value in state.items()}) == key
    changed = state["a"].clone()
    changed[1, 2] += 1e-6
    others = [
        {**state, "a": changed},
        {**state, "a": state["a"].T.contiguous()},
        {**state, "a": state["a"].reshape(3, 2)},
        {**state, "a": state["a"].view(torch.int32)},
        {**state, "a": state["a"].half()},
        {**state, "d": torch.ones(1)},
        {"a": state["a"], "b": state["b"], "e": state["c"]},
    ]
    assert len({key, *map(weights_key, others)}) == 8


# Its limit


def test_what_was_not_used_for_the_longest_goes_first(tmp_path):
    """Four entries of another run, a limit that has room for this run's and one more."""
    found, cache, encoders = clips(tmp_path / "in"), tmp_path / "cache", Encoders()
    list(encoded(found, cache, encoders, video_key="another VAE").fill())
    others = files(cache / "latents")
    for age, path in enumerate(others):
        os.utime(path, (10**9 + age, 10**9 + age))
    list(encoded(found, cache, encoders).fill())
    size, total = others[0].stat().st_size, sum(path.stat().st_size for path in files(cache))
    limited = encoded(found, cache, encoders, most=(total - 2.5 * size) / 1e9)
    list(limited.fill())
    assert [path.exists() for path in others] == [False, False, False, True]
    assert "3 entries not used for the longest were deleted from it" in limited.report()
    again = encoded(found, cache, encoders)
    list(again.fill())
    assert again.videos.misses == 0, "this run's are all there"


def test_this_run_s_own_are_never_deleted(tmp_path):
    made = encoded(clips(tmp_path / "in"), tmp_path / "cache", Encoders(), most=1e-9)
    list(made.fill())
    assert "all for these clips, more than cache_gb allows (1e-09)" in made.report()
    assert len(files(tmp_path / "cache" / "latents")) == 4
