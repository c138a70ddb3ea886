"""Words that people search nodes by: what the field, other packs and papers call what a node does. A row per node.

ComfyUI's search looks at a node's id, its name and these. Older ComfyUIs, such as 0.3.64, do not know them and leave them out.
"""

ALIASES: dict[str, tuple[str, ...]] = {
    # motion
    "LongTakeLoadMotionModule": ("animatediff", "animatelcm", "lcm", "hotshot", "pia", "motion model", "load animatediff"),
    "LongTakeApplyMotionModule": ("animatediff", "animate", "text to video", "t2v", "evolved sampling", "video to video", "gif"),
    "LongTakeMotionKeyframe": ("animatediff keyframe", "multival", "scale and effect", "ad keyframe"),
    "LongTakeApplyMotionLora": ("motionlora", "motiondirector", "animatediff lora", "pan", "zoom", "tilt", "roll"),
    "LongTakeContextWindows": ("context options", "sliding context", "freenoise", "long video", "loop", "looped", "view options"),
    "LongTakeShowPlan": ("context options", "memory", "vram", "preview windows"),
    "LongTakeGraftCamera": ("cameractrl", "camera control", "pose adapter"),
    "LongTakeCameraPoses": ("cameractrl", "camera control", "camera motion", "trajectory", "pan", "zoom", "orbit"),
    "LongTakeApplyCamera": ("cameractrl", "camera control", "motionctrl"),
    # noise
    "LongTakeClipNoise": ("freenoise", "noise layers", "sample settings", "mixed noise", "pyoco", "repeated context"),
    "LongTakeFreeInit": ("iteration options", "temporal consistency", "flicker"),
    "LongTakeNoiseAugment": ("augmentation level", "svd", "stable video diffusion", "noise augmentation"),
    # keyframes and control
    "LongTakeKeyframes": ("timeline", "timestep keyframe", "latent keyframe", "batch", "storyboard", "keyframe interpolation"),
    "LongTakeKeyframedControlNet": ("advanced controlnet", "latent keyframe", "timestep keyframe", "controlnet weights"),
    "LongTakeLoadSparseControl": ("sparsectrl", "sparse control", "rgb", "scribble"),
    "LongTakeApplySparseControl": (
        "sparsectrl",
        "sparse control",
        "image to video",
        "i2v",
        "keyframe interpolation",
        "inbetweening",
    ),
    "LongTakeLoadImagePrompt": ("ip-adapter", "ipadapter", "moonshot"),
    "LongTakeApplyImagePrompt": ("ip-adapter", "ipadapter", "moonshot", "style reference", "image to video"),
    "LongTakeFirstFrame": ("image to video", "i2v", "pia", "animatelcm-i2v", "moonshot", "start image", "inpaint"),
    "LongTakeKnownFrames": ("inbetweening", "first last frame", "flf2v", "start end frame"),
    "LongTakeHintLatents": ("frame interpolation", "keyframe interpolation", "inbetweening"),
    "LongTakeInterpolateTo": ("rife", "film", "frame interpolation", "vfi", "frame rate", "fps", "slow motion"),
    "LongTakePromptSchedule": ("prompt travel", "batch prompt schedule", "fizznodes", "animate prompt", "keyframed prompt"),
    "LongTakeValueSchedule": ("batch value schedule", "fizznodes", "animation curve", "deforum"),
    # samplers with a noise level per frame
    "LongTakeNoiseLevels": ("diffusion forcing", "scheduling matrix", "pyramid", "noise schedule", "autoregressive"),
    "LongTakeRollout": ("diffusion forcing", "text to video", "t2v", "autoregressive", "long video", "df sampler"),
    "LongTakeForcingSampler": ("diffusion forcing", "skyreels", "df sampler", "rolling diffusion", "autoregressive"),
    "LongTakeStream": ("endless video", "infinite video", "streaming", "diffusion forcing", "long video", "loop"),
    "LongTakeRecord": ("save frames", "save video", "low memory", "checkpoint", "resume"),
    "LongTakeFifoSampler": ("fifo-diffusion", "animatediff", "infinite video", "long video", "queue"),
    "LongTakeSkyReels": ("skyreels", "diffusion forcing", "wan", "causal attention"),
    "LongTakeCausalTake": ("self forcing", "causvid", "wan", "kv cache", "autoregressive", "infinite video", "text to video"),
    "LongTakeCausalStart": ("image to video", "i2v", "video extension", "self forcing"),
    "LongTakePromptAt": ("prompt travel", "prompt schedule", "timed prompt", "longlive"),
    "LongTakeVdmSampler": ("video diffusion models", "langevin", "predictor corrector", "ancestral"),
    "LongTakeExtend": ("video extension", "continue", "outpaint", "longer", "extend video"),
    # guidance
    "LongTakeHistoryGuidance": ("dfot", "history guided", "vanilla", "fractional", "temporal guidance"),
    "LongTakeGuider": ("cfg", "cfgguider", "guidance"),
    "LongTakeReconstructionGuidance": ("inpainting", "super resolution", "upscale", "dps", "known frames"),
    "LongTakeGoalGuidance": ("classifier guidance", "monte carlo", "universal guidance", "brightness", "colour", "color"),
    # models
    "LongTakeLoadVideoModel": ("checkpoint", "text to video", "make a video", "tempofunk", "pseudo 3d"),
    "LongTakeLoadAutoencoder": ("vae", "load vae"),
    "LongTakeLabelPrompt": ("text encode", "class label", "prompt"),
    "LongTakeEmptyClip": ("empty latent", "latent video"),
    # looking and measuring
    "LongTakeContactSheet": ("grid", "preview", "image grid", "montage"),
    "LongTakeVideoMetrics": ("fvd", "fid", "inception score", "warp error", "evaluate", "flicker"),
    "LongTakeMotionSpectrum": ("flicker", "fourier", "frequency", "temporal"),
    "LongTakeCompareVideos": ("side by side", "difference", "before after", "ab test"),
    "LongTakeLossPlot": ("tensorboard", "training curve", "log"),
    "LongTakeAttentionEntropy": ("attention map", "entropy collapse", "visualize attention"),
    # training
    "LongTakeClipFolder": ("dataset", "load videos", "training data", "captions", "webvid"),
    "LongTakeClipsFromImages": ("dataset", "training data", "frames"),
    "LongTakeShapesClips": ("dataset", "toy data", "moving mnist", "procedural"),
    "LongTakePostcardsClips": ("dataset", "toy data", "procedural"),
    "LongTakeTrainMotion": ("train animatediff", "train motion lora", "motiondirector", "finetune", "domain adapter"),
    "LongTakeTrainSparseControl": ("train sparsectrl", "train controlnet", "finetune"),
    "LongTakeTrainImagePrompt": ("train ip-adapter", "train ipadapter", "finetune"),
    "LongTakeTrainVideoModel": ("train diffusion forcing", "train from scratch", "text to video"),
    "LongTakeTrainAutoencoder": ("train vae", "variational autoencoder"),
    "LongTakeTrainingOptions": (
        "hyperparameters",
        "gradient checkpointing",
        "gradient accumulation",
        "optimizer",
        "adamw",
        "ema",
    ),
}
