"""What ``host`` offers when nodes run on ComfyUI."""

from comfy.model_management import InterruptProcessingException as Interrupted
from comfy_api.latest import ComfyExtension, io, ui

from .attach.camera import apply_camera
from .attach.causal import apply_causal, ring_bytes
from .attach.context import context_windows
from .attach.experts import apply_experts
from .attach.first_frame import apply_first_frame
from .attach.image_prompt import apply_image_prompt
from .attach.motion import apply_motion, window_plan
from .attach.motion_lora import apply_motion_lora
from .attach.noise import add_clip_noise, add_freeinit
from .attach.pseudo3d import pseudo3d_model
from .attach.reference import apply_reference
from .attach.skyreels import apply_skyreels
from .attach.vae_pieces import piece_decoder
from .attach.video import vae, video_info, video_model
from .attached import motion_models, unet_of
from .control.keyed_control import apply_keyed_control
from .control.sparsectrl import apply_sparse_control, sparse_control
from .folders import file, files, input_directory, model_directory, output_directory, temp_directory
from .interpolation import interpolator
from .layout import in_model_numbers
from .memory import device, memory_text
from .progress import Progress, check_interrupt, show_files
from .sampling.costs import sampling_cost
from .sampling.guiding import coordinates_of, guider
from .sampling.model_facts import level_sigmas, noise_schedule, suits_gradients
from .sampling.recording import identity
from .sampling.sampling import forcing_sampler, sample
from .training import trainable
from .training_encoders import clip_encoder, image_encoder, text_encoder

name = "comfyui"
