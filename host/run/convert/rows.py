"""What of AnimateDiff-Evolved, Advanced-ControlNet and FizzNodes is what here, as tables: facts about their nodes, not their code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TEXT = -1  # the output of a value schedule that ours has and theirs do not: the numbers as a text

# Names of widgets in their order, for classes that are looked into; the editor's format has the values alone.
WIDGETS = {
    kind: tuple(names.split())
    for kind, names in {
        "ADE_LoadAnimateDiffModel": "model_name",
        "ADE_ApplyAnimateDiffModel": "start_percent end_percent",
        "ADE_ApplyAnimateDiffModelSimple": "",
        "ADE_UseEvolvedSampling": "beta_schedule",
        "ADE_AnimateDiffLoaderGen1": "model_name beta_schedule",
        "ADE_AnimateDiffLoaderWithContext": "model_name beta_schedule motion_scale apply_v2_models_properly",
        "ADE_AnimateDiffLoRALoader": "name strength",
        "ADE_AnimateDiffKeyframe": "start_percent inherit_missing guarantee_steps",
        "ADE_MultivalDynamic": "float_val",
        "ADE_MultivalDynamicFloatInput": "",
        "ADE_MultivalScaledMask": "min_float_val max_float_val scaling",
        "ADE_MultivalDynamicFloats": "",
        "ADE_StandardStaticContextOptions": "context_length context_overlap fuse_method use_on_equal_length start_percent"
        " guarantee_steps",
        "ADE_StandardUniformContextOptions": "context_length context_stride context_overlap fuse_method use_on_equal_length"
        " start_percent guarantee_steps",
        "ADE_LoopedUniformContextOptions": "context_length context_stride context_overlap closed_loop fuse_method"
        " use_on_equal_length start_percent guarantee_steps",
        "ADE_AnimateDiffUniformContextOptions": "context_length context_stride context_overlap context_schedule closed_loop"
        " fuse_method use_on_equal_length start_percent guarantee_steps",
        "ADE_BatchedContextOptions": "context_length start_percent guarantee_steps",
        "ADE_ViewsOnlyContextOptions": "start_percent guarantee_steps",
        "ADE_StandardStaticViewOptions": "view_length view_overlap fuse_method",
        "ADE_StandardUniformViewOptions": "view_length view_stride view_overlap fuse_method",
        "ADE_LoopedUniformViewOptions": "view_length view_stride view_overlap closed_loop fuse_method use_on_equal_length",
        "ADE_AnimateDiffSamplingSettings": "batch_offset noise_type seed_gen seed_offset adapt_denoise_steps",
        "ADE_IterationOptsFreeInit": "iterations filter d_s d_t n_butterworth sigma_step apply_to_1st_iter init_type"
        " iter_batch_offset iter_seed_offset",
        "ADE_EmptyLatentImageLarge": "width height batch_size",
        "CheckpointLoaderSimpleWithNoiseSelect": "ckpt_name beta_schedule use_custom_scale_factor scale_factor",
        "ADE_PromptScheduling": "prompts print_schedule max_length tensor_interp",
        "ADE_PromptSchedulingLatents": "prompts print_schedule tensor_interp",
        "ADE_ValueScheduling": "values print_schedule max_length",
        "ADE_ValueSchedulingLatents": "values print_schedule",
        "BatchPromptSchedule": "text max_frames print_output pre_text app_text start_frame",
        "BatchPromptScheduleLatentInput": "text print_output pre_text app_text start_frame",
        "BatchValueSchedule": "text max_frames print_output",
        "BatchValueScheduleLatentInput": "text print_output",
        "ACN_ControlNetLoaderAdvanced": "cnet",
        "ACN_AdvancedControlNetApply_v2": "strength start_percent end_percent",
        "ACN_SparseCtrlLoaderAdvanced": "sparsectrl_name use_motion motion_strength motion_scale context_aware sparse_hint_mult"
        " sparse_nonhint_mult sparse_mask_mult",
        "ACN_SparseCtrlIndexMethodNode": "indexes",
        "ACN_SparseCtrlSpreadMethodNode": "spread",
        "ACN_SparseCtrlRGBPreprocessor": "",
        "EmptyLatentImage": "width height batch_size",
    }.items()
}

# Classes by other names of theirs
ALIASES = {
    "ControlNetLoaderAdvanced": "ACN_ControlNetLoaderAdvanced",
    "ACN_AdvancedControlNetApply": "ACN_AdvancedControlNetApply_v2",
}

# Classes that only say something to others, which take it along; gone when nothing takes from them any more
SAYING = (
    *(kind for kind in WIDGETS if kind.endswith(("ContextOptions", "ViewOptions"))),
    "ADE_AnimateDiffLoRALoader",
    "ADE_AnimateDiffKeyframe",
    "ADE_MultivalDynamic",
    "ADE_MultivalDynamicFloatInput",
    "ADE_MultivalDynamicFloats",
    "ADE_MultivalScaledMask",
    "ADE_AnimateDiffSamplingSettings",
    "ADE_IterationOptsFreeInit",
    "ADE_IterationOptsDefault",
    "ADE_ApplyAnimateDiffModel",
    "ADE_ApplyAnimateDiffModelSimple",
    "ACN_SparseCtrlLoaderAdvanced",
    "ACN_SparseCtrlIndexMethodNode",
    "ACN_SparseCtrlSpreadMethodNode",
    "ACN_SparseCtrlRGBPreprocessor",
)


@dataclass(frozen=True)
class Row:
    """A node of theirs that is one node here.

    Attributes:
        kind: the class here.
        names: of inputs, theirs to ours.
        outputs: numbers of outputs, theirs to ours.
        dropped: inputs of theirs that have no place here, with why; said where they were set.
    """

    kind: str
    names: Mapping[str, str]
    outputs: Mapping[int, int] = field(default_factory=lambda: {0: 0})
    dropped: Mapping[str, str] = field(default_factory=dict)


PRINTING = "it prints the schedule: the output report has it"
KEYFRAMES = "timestep keyframes are not converted: Keyframed ControlNet has strengths by frame, and a start and an end"

ROWS = {
    "ADE_LoadAnimateDiffModel": Row(
        "LongTakeLoadMotionModule",
        {"model_name": "motion_module"},
        dropped={
            "ad_settings": "positions and weights of a module are set by Apply Motion Module (positions) and Motion Keyframe (blocks)"
        },
    ),
    "ADE_EmptyLatentImageLarge": Row("EmptyLatentImage", {"width": "width", "height": "height", "batch_size": "batch_size"}),
    "CheckpointLoaderSimpleWithNoiseSelect": Row(
        "CheckpointLoaderSimple",
        {"ckpt_name": "ckpt_name"},
        {0: 0, 1: 1, 2: 2},
        dropped={
            "beta_schedule": "Apply Motion Module sets the noise schedule",
            "use_custom_scale_factor": "the VAE's scale is the checkpoint's",
        },
    ),
    "ADE_PromptScheduling": Row(
        "LongTakePromptSchedule",
        {"prompts": "schedule", "clip": "clip", "prepend_text": "before", "append_text": "after", "max_length": "frames"},
        dropped={
            "values_replace": "write the numbers as terms between backticks, such as `0.5+t/max_f`",
            "print_schedule": PRINTING,
        },
    ),
    "BatchPromptSchedule": Row(
        "LongTakePromptSchedule",
        {"text": "schedule", "clip": "clip", "pre_text": "before", "app_text": "after", "max_frames": "frames"},
        {0: 0, 1: 1},
        dropped={
            **dict.fromkeys(
                ("pw_a", "pw_b", "pw_c", "pw_d"), "write the numbers as terms between backticks, such as `0.5+t/max_f`"
            ),
            "print_output": PRINTING,
            "start_frame": "every frame of the clip is made",
        },
    ),
    "ADE_ValueScheduling": Row(
        "LongTakeValueSchedule",
        {"values": "schedule", "max_length": "frames"},
        {0: 1, 1: 1, TEXT: 0},
        dropped={"print_schedule": "it prints the schedule: the output numbers has it"},
    ),
    "BatchValueSchedule": Row(
        "LongTakeValueSchedule",
        {"text": "schedule", "max_frames": "frames"},
        {0: 1, TEXT: 0},
        dropped={"print_output": "it prints the schedule: the output numbers has it"},
    ),
    "ACN_ControlNetLoaderAdvanced": Row("ControlNetLoader", {"cnet": "control_net_name"}, dropped={"_tk_opt": KEYFRAMES}),
    "ACN_AdvancedControlNetApply_v2": Row(
        "ControlNetApplyAdvanced",
        {
            **{
                name: name
                for name in ("positive", "negative", "control_net", "image", "strength", "start_percent", "end_percent")
            },
            "vae_optional": "vae",
        },
        {0: 0, 1: 1},
        dropped={
            "mask_optional": "a control's mask is not converted",
            "timestep_kf": KEYFRAMES,
            "latent_kf_override": "use Keyframed ControlNet with Keyframes, or its strength_per_frame",
            "weights_override": "soft and custom weights are not converted",
        },
    ),
}
ROWS["ADE_PromptSchedulingLatents"] = ROWS["ADE_PromptScheduling"]
ROWS["ADE_ValueSchedulingLatents"] = ROWS["ADE_ValueScheduling"]
ROWS["BatchPromptScheduleLatentInput"] = ROWS["BatchPromptSchedule"]
ROWS["BatchValueScheduleLatentInput"] = ROWS["BatchValueSchedule"]
# Schedules that are as long as a latent: the input that it comes by, and the output that it leaves by
LATENTS = {
    "ADE_PromptSchedulingLatents": ("latent", 1),
    "ADE_ValueSchedulingLatents": ("latent", None),
    "BatchPromptScheduleLatentInput": ("num_latents", 2),
    "BatchValueScheduleLatentInput": ("num_latents", 2),
}

# Values that say nothing, of inputs that are dropped
NOTHING = {
    "print_schedule": False,
    "print_output": False,
    "use_custom_scale_factor": False,
    "start_frame": 0,
    "pw_a": 0.0,
    "pw_b": 0.0,
    "pw_c": 0.0,
    "pw_d": 0.0,
    "beta_schedule": "use existing",
}

# The noise schedules' names, theirs to ours
SCHEDULES = {
    "autoselect": "authors",
    "use existing": "model",
    "sqrt_linear (AnimateDiff)": "linear",
    "linear (AnimateDiff-SDXL)": "animatediff_sdxl",
    "linear (HotshotXL/default)": "scaled_linear",
}
# Context options: the window schedule, and inputs whose names differ
WINDOWS = {
    "ADE_StandardStaticContextOptions": "standard_static",
    "ADE_StandardUniformContextOptions": "standard_uniform",
    "ADE_LoopedUniformContextOptions": "looped_uniform",
    "ADE_AnimateDiffUniformContextOptions": "looped_uniform",
    "ADE_BatchedContextOptions": "batched",
    "ADE_StandardStaticViewOptions": "standard_static",
    "ADE_StandardUniformViewOptions": "standard_uniform",
    "ADE_LoopedUniformViewOptions": "looped_uniform",
}
FUSES = ("pyramid", "flat", "relative", "overlap-linear")
NOISES = {"constant": "constant", "repeated_context": "repeated", "FreeNoise": "freenoise"}
# Connections of sample settings that have no place here, with what does it instead
SETTINGS = {
    "noise_layers": "chain Clip Noise nodes, which add and mix layers",
    "custom_cfg": "cfg is the sampler's",
    "sigma_schedule": "Apply Motion Module has noise_schedule, and BasicScheduler the sigmas",
    "image_inject": "no node here injects pictures at a step",
    "ancestral_opts": "ancestral noise is the sampler's",
    "seed_override": "the seed is the sampler's",
}
