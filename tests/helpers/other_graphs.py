"""Small graphs of other packs' nodes, as people make them, in API format."""


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


MODEL = {
    "1": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
    "2": node("CLIPTextEncode", clip=["1", 1], text="a forest"),
    "3": node("CLIPTextEncode", clip=["1", 1], text="worst quality"),
    "4": node("ADE_EmptyLatentImageLarge", width=64, height=64, batch_size=24),
}


def sampled(model, positive=("2", 0), negative=("3", 0)):
    """From the model to pictures, by another pack's node at the end."""
    sampler = {"seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": list(model), "positive": list(positive), "negative": list(negative), "latent_image": ["4", 0]}
    return {
        "90": node("KSampler", **sampler, **links),
        "91": node("VAEDecode", samples=["90", 0], vae=["1", 2]),
        "92": node("VHS_VideoCombine", images=["91", 0], frame_rate=8),
    }


EVOLVED = {
    **MODEL,
    "10": node("ADE_LoadAnimateDiffModel", model_name="v3_sd15_mm.ckpt"),
    "11": node("ADE_MultivalDynamic", float_val=0.8),
    "12": node("ADE_AnimateDiffLoRALoader", name="zoom.ckpt", strength=0.7),
    "13": node("ADE_AnimateDiffLoRALoader", name="pan.ckpt", strength=0.5, prev_motion_lora=["12", 0]),
    "14": node(
        "ADE_ApplyAnimateDiffModel",
        motion_model=["10", 0],
        start_percent=0.0,
        end_percent=1.0,
        motion_lora=["13", 0],
        effect_multival=["11", 0],
    ),
    "15": node(
        "ADE_StandardStaticContextOptions",
        context_length=16,
        context_overlap=4,
        fuse_method="pyramid",
        use_on_equal_length=False,
        start_percent=0.0,
        guarantee_steps=1,
    ),
    "16": node(
        "ADE_AnimateDiffSamplingSettings",
        batch_offset=0,
        noise_type="FreeNoise",
        seed_gen="comfy",
        seed_offset=0,
        adapt_denoise_steps=False,
    ),
    "17": node(
        "ADE_UseEvolvedSampling",
        model=["1", 0],
        beta_schedule="autoselect",
        m_models=["14", 0],
        context_options=["15", 0],
        sample_settings=["16", 0],
    ),
    **sampled(("17", 0)),
}

GEN1 = {
    **MODEL,
    "10": node("ADE_ValueScheduling", values='"0": 1.0, "23": 0.5', print_schedule=False, max_length=24),
    "11": node("ADE_MultivalDynamicFloats", floats=["10", 1]),
    "12": node("ADE_LoopedUniformContextOptions", context_length=16, context_stride=1, context_overlap=4, closed_loop=True),
    "13": node(
        "ADE_AnimateDiffLoaderGen1",
        model=["1", 0],
        model_name="mm_sd_v15_v2.ckpt",
        beta_schedule="sqrt_linear (AnimateDiff)",
        context_options=["12", 0],
        scale_multival=["11", 0],
    ),
    "20": node(
        "BatchPromptSchedule",
        text='"0": "a forest", "12": "snow"',
        clip=["1", 1],
        max_frames=24,
        print_output=False,
        pre_text="photo",
        app_text="best",
        start_frame=0,
    ),
    **sampled(("13", 0), ("20", 0), ("20", 1)),
}

SPARSE = {
    **MODEL,
    "10": node("LoadImage", image="first.png"),
    "11": node("ACN_SparseCtrlIndexMethodNode", indexes="0, -1"),
    "12": node(
        "ACN_SparseCtrlLoaderAdvanced",
        sparsectrl_name="v3_sd15_sparsectrl_rgb.ckpt",
        use_motion=True,
        motion_strength=1.0,
        motion_scale=1.0,
        sparse_method=["11", 0],
        sparse_hint_mult=1.2,
    ),
    "13": node("ACN_SparseCtrlRGBPreprocessor", image=["10", 0], vae=["1", 2], latent_size=["4", 0]),
    "14": node(
        "ACN_AdvancedControlNetApply_v2",
        positive=["2", 0],
        negative=["3", 0],
        control_net=["12", 0],
        image=["13", 0],
        strength=0.9,
        start_percent=0.0,
        end_percent=1.0,
    ),
    **sampled(("1", 0), ("14", 0), ("14", 1)),
}


def drawn(api, widgets):
    """The same as the editor saves it, without the names of widgets: by class, ``widgets`` has their order."""
    numbers = {id: int(id) for id in api}
    links, nodes = [], {}
    for id, item in api.items():
        values = item["inputs"]
        sockets = []
        for name, value in values.items():
            if isinstance(value, list):
                links.append([len(links) + 1, numbers[value[0]], value[1], numbers[id], len(sockets), "*"])
                sockets.append({"name": name, "type": "*", "link": len(links)})
        nodes[id] = {
            "id": numbers[id],
            "type": item["class_type"],
            "pos": [100 * numbers[id], 0],
            "inputs": sockets,
            "outputs": [{"name": f"{slot}", "type": "*", "links": []} for slot in range(3)],
            "widgets_values": [values.get(name) for name in widgets[item["class_type"]]]
            if item["class_type"] in widgets
            else [value for value in values.values() if not isinstance(value, list)],
        }
    return {"nodes": list(nodes.values()), "links": links, "last_node_id": 99, "last_link_id": len(links), "version": 0.4}
