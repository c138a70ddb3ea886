"""Where the model files that the workflows name are published; the editor's dialog for missing models offers them."""

HUB = "https://huggingface.co"
ANIMATEDIFF = f"{HUB}/guoyww/animatediff/resolve/main"
ANIMATELCM = f"{HUB}/wangfuyun/AnimateLCM/resolve/main"
IP_ADAPTER = f"{HUB}/h94/IP-Adapter/resolve/main/models"
WAN = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_22 = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"

# Files as the workflows name them -> their address
ADDRESSES = {
    "AnimateLCM_sd15_t2v.ckpt": f"{ANIMATELCM}/AnimateLCM_sd15_t2v.ckpt",
    "AnimateLCM_sd15_t2v_lora.safetensors": f"{ANIMATELCM}/AnimateLCM_sd15_t2v_lora.safetensors",
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": f"{IP_ADAPTER}/image_encoder/model.safetensors",
    "Wan2_1-SkyReels-V2-DF-1_3B-540P_fp32.safetensors": (
        f"{HUB}/Kijai/WanVideo_comfy/resolve/main/Skyreels/Wan2_1-SkyReels-V2-DF-1_3B-540P_fp32.safetensors"
    ),
    "control_v11p_sd15_canny.pth": f"{HUB}/lllyasviel/ControlNet-v1-1/resolve/main/control_v11p_sd15_canny.pth",
    "control_v11p_sd15_canny_fp16.safetensors": (
        f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11p_sd15_canny_fp16.safetensors"
    ),
    "ip-adapter-plus_sd15.safetensors": f"{IP_ADAPTER}/ip-adapter-plus_sd15.safetensors",
    "ip-adapter_sd15.safetensors": f"{IP_ADAPTER}/ip-adapter_sd15.safetensors",
    "mm_sd_v15_v2.ckpt": f"{ANIMATEDIFF}/mm_sd_v15_v2.ckpt",
    "mm_sdxl_v10_beta.ckpt": f"{ANIMATEDIFF}/mm_sdxl_v10_beta.ckpt",
    "pia.ckpt": f"{HUB}/Leoxing/PIA/resolve/main/pia.ckpt",
    "rife_v4.26.safetensors": f"{HUB}/Comfy-Org/frame_interpolation/resolve/main/rife_v4.26.safetensors",
    "sd-v1-5-inpainting.ckpt": f"{HUB}/stable-diffusion-v1-5/stable-diffusion-inpainting/resolve/main/sd-v1-5-inpainting.ckpt",
    "sd_xl_base_1.0.safetensors": f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": f"{WAN}/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors": (
        f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors"
    ),
    "v2_lora_PanLeft.ckpt": f"{ANIMATEDIFF}/v2_lora_PanLeft.ckpt",
    "v2_lora_ZoomIn.ckpt": f"{ANIMATEDIFF}/v2_lora_ZoomIn.ckpt",
    "v3_sd15_adapter.ckpt": f"{ANIMATEDIFF}/v3_sd15_adapter.ckpt",
    "v3_sd15_mm.ckpt": f"{ANIMATEDIFF}/v3_sd15_mm.ckpt",
    "v3_sd15_sparsectrl_rgb.ckpt": f"{ANIMATEDIFF}/v3_sd15_sparsectrl_rgb.ckpt",
    "wan2.1_i2v_480p_14B_fp8_scaled.safetensors": f"{WAN}/diffusion_models/wan2.1_i2v_480p_14B_fp8_scaled.safetensors",
    "wan2.1_t2v_1.3B_fp16.safetensors": f"{WAN}/diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors",
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": (
        f"{WAN_22}/diffusion_models/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"
    ),
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": f"{WAN_22}/diffusion_models/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
    "wan_2.1_vae.safetensors": f"{WAN}/vae/wan_2.1_vae.safetensors",
}
# Files that their authors publish in another form: what to do instead
MADE = {"self_forcing_dmd.safetensors"}  # Convert Causal Checkpoint makes it of self_forcing_dmd.pt
