"""Finished frames to disk as they come, from any sampler that finishes frames before its end."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from ... import host
from ...host.mp4 import mp4
from ...modules.disk.file_names import check_writable, folder_below
from ...modules.disk.frame_files import FrameFiles
from ...modules.disk.recorder import Recorder
from ...modules.disk.recording import Recording
from ...modules.disk.recording_settings import RecordingSettings
from ...modules.disk.state import state_before
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode

io = host.io
DECODES = (
    "The VAE turns finished frames into pictures, decode_batch at a time; for video models it is Wan's, which leaves no seams."
)
RecordingType = io.Custom("LONGTAKE_RECORDING")


class LongTakeRecord(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeRecord",
            display_name="Record to Disk",
            category="LongTake/forcing",
            description="Writes a sampler's finished frames to disk as they come: memory does not grow, Cancel loses nothing, and the same"
            " job goes on where it stopped. It is for Causal Take, FIFO Sampler, Forcing Sampler, Rollout and Extend; their LATENT is then"
            " its end.",
            inputs=[
                io.Vae.Input(
                    "vae",
                    tooltip=DECODES,
                ),
                *inputs_of(RecordingSettings),
            ],
            outputs=[RecordingType.Output(display_name="recording", tooltip="This belongs to the input recording of a sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **given: Any) -> str | float:
        return on_disk(given)

    @classmethod
    def execute(cls, vae: Any, **given: Any) -> "io.NodeOutput":
        return io.NodeOutput(recording_of(vae, settings_of(RecordingSettings, given)))


def recording_input() -> "io.Input":
    """Where a sampler's frames go."""
    return RecordingType.Input(
        "recording",
        optional=True,
        tooltip="Finished frames go to disk as they come, as Record to Disk says, and the LATENT is the end of the take, as many frames"
        " as decode_batch.",
    )


def recording_of(vae: Any, settings: RecordingSettings, made: list[Recorder] | None = None) -> Recording:
    """Where finished frames go.

    Args:
        vae: VAE.
        settings: what the user has set.
        made: gets the recorder at the end, however that came.

    Raises:
        ValueError: nothing can be written there.
    """

    def told(recorder: Recorder) -> None:
        host.show_files(recorder.text(), recorder.last_files())
        if made is not None:
            made.append(recorder)

    files = files_of(settings)
    check_writable(files.folder, files.prefix)
    return Recording(
        files,
        vae.decode,
        partial(host.piece_decoder, vae),
        host.identity(vae),
        settings.decode_batch,
        settings.save_every,
        settings.resume,
        settings.preview,
        told,
    )


def files_of(settings: RecordingSettings) -> FrameFiles:
    """The files of a take.

    Raises:
        ValueError: they cannot be called so.
    """
    folder = folder_below(host.output_directory(), settings.folder)
    return FrameFiles(folder, settings.filename_prefix, settings.format, settings.fps, mp4)


def shown(report: str, recording: Recording | None) -> Any:
    """What a node shows that has made a take: its report, and where it was recorded the last files of the take."""
    text = host.ui.PreviewText(report)
    if recording is None:
        return text
    folder = recording.files.folder.relative_to(host.output_directory().resolve()).as_posix()
    files = [host.ui.SavedResult(path.name, folder, io.FolderType.output) for path in recording.files.newest(recording.batch)]
    return {**text.as_dict(), **host.ui.SavedImages(files, is_animated=recording.files.format == "mp4").as_dict()}


def on_disk(given: Mapping[str, Any]) -> str | float:
    """What changes when a take on disk does, for ``fingerprint_inputs``; NaN, which always does, where its name comes from other nodes."""
    if given.get("folder") is None or given.get("filename_prefix") is None:
        return math.nan
    state = files_of(RecordingSettings(given["folder"], given["filename_prefix"])).state
    there = next((path for path in (state, state_before(state)) if path.exists()), None)
    return "none" if there is None else f"{there.stat().st_mtime_ns}"
