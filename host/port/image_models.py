"""What only ComfyUI does, since it works on image models and with nodes of ComfyUI's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from .kinds import Conditioning, Latent, Model, Vae

if TYPE_CHECKING:
    from torch import Tensor

    from ...modules.checkpoints.image_prompt import ImagePrompt
    from ...modules.checkpoints.pseudo3d import Pseudo3DModel
    from ...modules.control.camera import CameraPath
    from ...modules.control.first_frame import FirstFrameSettings
    from ...modules.control.keyframes import Keyframes
    from ...modules.control.prompt_settings import PromptSettings
    from ...modules.control.reference import ReferenceSettings
    from ...modules.control.retiming import Between
    from ...modules.control.sparse_pictures import SparseSettings
    from ...modules.disk.decoding import Decoder
    from ...modules.disk.recording import Recording
    from ...modules.noise.clip_noise import Layer
    from ...modules.noise.freeinit import FreeInit
    from ...modules.sampling.job import Algorithm
    from ...modules.sampling.model_view import Guide
    from ...modules.temporal.kv_cache import CacheSettings
    from ...modules.temporal.windows import WindowPlan
    from ...modules.train.base import Encoder


class ImageModels(Protocol):
    """What works on image models, which ComfyUI alone can load; ``standalone/elsewhere.py`` has the sentence for each."""

    def context_windows(self, model: Model, plan: WindowPlan, mode: str) -> Model:
        """A clone of ``model`` for clips longer than a window.

        Args:
            model: with a motion module; in mode ``whole`` any whose frames lie in the batch axis.
            plan: of the windows; a length of 0 takes the motion module's.
            mode: a name in ``windows.MODES``.

        Raises:
            ValueError: the windows do not fit the model.
        """
        ...

    def window_plan(self, model: Model) -> tuple[WindowPlan | None, str, int, int | None]:
        """(plan, mode, trained frames, most frames) of a MODEL, as Show Plan wants them."""
        ...

    def memory_text(self, model: Model, latent: Mapping[str, Any]) -> str:
        """What a clip takes of the memory, in plain words.

        Args:
            model: as it goes into the sampler.
            latent: LATENT; ``samples`` is ``f c h w``.
        """
        ...

    def add_clip_noise(self, model: Model, layer: Layer, noise: Any = None) -> tuple[Model, Any]:
        """One more layer on the noise of every sampler that runs the model.

        Args:
            model: MODEL.
            layer: goes on top of what is there.
            noise: NOISE or None, from RandomNoise or from this function.

        Returns:
            model: a clone.
            noise: a NOISE that gives the same as samplers use with that model.
        """
        ...

    def add_freeinit(self, model: Model, settings: FreeInit) -> Model:
        """A clone of ``model`` with which every sampler runs several times, each from the slow part of the last result."""
        ...

    def apply_causal(self, model: Model, settings: CacheSettings) -> Model:
        """A Wan model that is sampled block by block and keeps keys and values of what it has seen, as ``settings`` say."""
        ...

    def ring_bytes(self, model: Model, shape: Sequence[int], room: int, conditions: int) -> int:
        """What the caches of a causal take come to when they are full, in bytes.

        Args:
            model: a Wan model.
            shape: of the latent, ``(batch, channels, frames, height, width)``.
            room: frames in a cache; 0 for all of the take's.
            conditions: that have a cache each.
        """
        ...

    def piece_decoder(self, vae: Vae) -> Decoder:
        """Wan's VAE for a take that is decoded as it is made.

        Args:
            vae: of Wan 2.1, with 16 channels, or of Wan 2.2 5B, with 48.

        Raises:
            ValueError: it is another VAE. One sentence.
        """
        ...

    def apply_experts(self, high: Model, low: Model, boundary: float = 0.0) -> Model:
        """A clone of ``high`` in which frames below the boundary go to ``low``; what an earlier call said is replaced.

        Args:
            high: a Wan model for much noise.
            low: its sibling for little.
            boundary: the share of the timesteps that are the first one's least; 0 for the authors'.

        Raises:
            ValueError: they are no such siblings, or something hangs on the second, which would act on neither. One sentence.
        """
        ...

    def apply_skyreels(self, model: Model, causal_block_size: int = 0, fps: Tensor | None = None) -> Model:
        """A clone of ``model`` that is run as SkyReels-V2's authors run theirs; what an earlier call said is replaced.

        Args:
            model: a Wan model.
            causal_block_size: latent frames that see each other and those before them; 0 for all frames seeing all.
            fps: ``6 d``, what is added to the time modulation, or None.

        Raises:
            ValueError: it is no such model, or ``fps`` is for one of another width. One sentence.
        """
        ...

    def apply_camera(self, model: Model, path: CameraPath, strength: float = 1.0) -> Model:
        """A clone of ``model`` whose last motion module with a CameraCtrl module on it follows a camera.

        Args:
            model: with a motion module that a camera was grafted onto.
            path: a pose for every frame of the clips that will be sampled.
            strength: 1 as trained, 0 for nothing.

        Raises:
            ValueError: there is no such motion module, or the strength is out of range.
        """
        ...

    def apply_reference(
        self,
        model: Model,
        vae: Vae,
        latent: Latent,
        images: Tensor | None,
        keyframes: Keyframes | None,
        settings: ReferenceSettings,
    ) -> Model:
        """A clone of ``model`` whose frames look at references in their self-attentions.

        Args:
            model: of Stable Diffusion's family.
            vae: of the model.
            latent: of the clip that will be sampled, whose size the references get.
            images: ``k h w c`` in 0..1, all of which each frame looks at; or None.
            keyframes: pictures with their times, of which a frame looks at the nearest; or None.
            settings: how strongly, where and when.

        Raises:
            ValueError: the model is none of this family or looks at references already, or there are no pictures.
        """
        ...

    def apply_first_frame(
        self, model: Model, vae: Vae, latent: Latent, keyframes: Keyframes, settings: FirstFrameSettings
    ) -> Model:
        """A clone of ``model`` that is given pictures of the clip.

        Args:
            model: an inpainting checkpoint, or with a motion module that follows pictures.
            vae: of the model's base.
            latent: LATENT of the clip that will be sampled; its size and number of frames are looked at.
            keyframes: pictures with their times.
            settings: what is given, and how strongly.

        Raises:
            ValueError: the model takes no pictures in this way, or they do not fit the clip. One sentence.
        """
        ...

    def apply_image_prompt(
        self,
        model: Model,
        prompt: ImagePrompt,
        settings: PromptSettings,
        clip_vision: Any = None,
        images: Tensor | None = None,
        keyframes: Keyframes | None = None,
        encoded: Any = None,
    ) -> Model:
        """A clone of ``model`` that looks at pictures as well as its text; what it looked at before stays.

        Args:
            model: of the base of ``prompt``.
            prompt: how to look.
            settings: how strongly, where and when.
            clip_vision: CLIP_VISION, or None where ``encoded`` says all.
            images: ``k h w c`` in 0..1, which all frames are shown together; or None.
            keyframes: pictures with their times; or None.
            encoded: CLIP_VISION_OUTPUT of pictures; or None.

        Raises:
            ValueError: the image prompt is for another base model, there are no pictures or several answers to which, or the image
                encoder is missing or another one. One sentence each.
        """
        ...

    def image_encoder(self, clip_vision: Any, kind: str) -> tuple[Encoder, Tensor]:
        """(an image encoder as a trainer uses it: pixels ``f c h w`` in -1..1 to ``f ... e``; ``... e``, what it sees of no picture).

        Args:
            clip_vision: CLIP_VISION.
            kind: of image prompt, a name in ``image_prompt.KINDS``.

        Raises:
            ValueError: what is given is no image encoder, or does not give what this kind looks at.
        """
        ...

    def apply_sparse_control(
        self, positive: Conditioning, negative: Conditioning, encoder: Any, settings: SparseSettings, vae: Vae | None = None
    ) -> tuple[Conditioning, Conditioning]:
        """Both conditionings, led by keyframes; a control that a condition had stays.

        Args:
            positive: what to show.
            negative: the same for guidance.
            encoder: from ``sparse_control``.
            settings: with keyframes for the clip.
            vae: of the model, for files that take latents.

        Raises:
            ValueError: the file takes latents and there is no VAE.
        """
        ...

    def apply_keyed_control(
        self,
        positive: Conditioning,
        negative: Conditioning,
        control: Any,
        keyframes: Keyframes,
        hints: Tensor | None = None,
        vae: Vae | None = None,
        strength: float = 1.0,
        percents: tuple[float, float] = (0.0, 1.0),
        per_frame: tuple[float, ...] = (),
    ) -> tuple[Conditioning, Conditioning]:
        """Both conditionings, controlled as strongly in each frame as the keyframes say.

        Args:
            positive: what to show.
            negative: the same for guidance.
            control: from Load ControlNet Model.
            keyframes: at a clip's length.
            hints: ``f h w c``, a hint for every frame; None for the nearest keyframe's image in each.
            vae: for those ControlNets that want one.
            strength: of everything.
            percents: shares of the sampling where it begins and ends.
            per_frame: factors on the strength, one for each frame, the last one holding to the end; empty for 1.

        Raises:
            ValueError: there are fewer or more hints than frames, or the control is none.
        """
        ...

    def interpolator(self, interp_model: Any, images: Tensor, count: int) -> AbstractContextManager[Between]:
        """What makes frames between two neighbours, with ComfyUI's networks.

        Args:
            interp_model: from its loader; None where nothing is connected.
            images: ``f h w c`` in 0..1, at least 2.
            count: of the frames that will be asked for.

        Raises:
            ValueError: this ComfyUI has no such networks, or no model is connected. Says what to do.
        """
        ...

    def pseudo3d_model(self, video: Pseudo3DModel) -> Model:
        """The MODEL of a pseudo-3-D file's contents; the latents of a batch are the frames of a clip."""
        ...

    def forcing_sampler(self, algorithm: Algorithm, recording: Recording | None = None) -> Any:
        """The SAMPLER of an algorithm, with finished frames to disk if wanted: sigmas, noise and latent come from SamplerCustomAdvanced."""
        ...

    def guider(self, model: Model, positive: Conditioning, negative: Conditioning | None, cfg: float, guide: Guide = ...) -> Any:
        """The GUIDER that does what ``guide`` does around the model."""
        ...
