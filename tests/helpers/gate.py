"""A workflow against what a ComfyUI tells of its nodes (``/object_info``): everything that its editor or its programs would trip over."""

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC)


def entries(groups, given, prefix=""):
    """(name, type, options, whether it must be there) of every input, those of the chosen branches of nested menus included.

    Args:
        groups: ``{"required": ..., "optional": ...}``.
        given: the node's inputs in API format.
        prefix: of names of nested inputs.
    """
    for group in ("required", "optional"):
        for name, entry in (groups.get(group) or {}).items():
            key, options = prefix + name, (entry[1] if len(entry) > 1 else {}) or {}
            kind = "COMBO" if isinstance(entry[0], list) else entry[0]
            if isinstance(entry[0], list):
                options = {**options, "options": entry[0]}
            yield key, kind, options, group == "required"
            if kind == DYNAMIC:
                branch = [item for item in options["options"] if item["key"] == given.get(key)]
                if branch:
                    yield from entries(branch[0]["inputs"], given, key + ".")


def choices(kind, options):
    """What a menu offers; None for what is no menu."""
    if kind == DYNAMIC:
        return [item["key"] for item in options["options"]]
    return options.get("options") if kind == "COMBO" else None


def fits(given, wanted):
    one, other = set(given.split(",")), set(wanted.split(","))
    return bool("*" in one | other or one & other)


def problems(workflow, information, extra=()):
    """One sentence for each thing that is wrong with a workflow in API format.

    Args:
        workflow: without notes.
        information: of every class, as ``/object_info`` gives it.
        extra: ``Class.input`` that other versions of ComfyUI want, and this one leaves out.
    """
    found = []
    for id, node in workflow.items():
        name, given = node["class_type"], node["inputs"]
        if name not in information:
            found.append(f"{id} {name}: there is no such node")
            continue
        facts = information[name]
        if facts.get("deprecated"):
            found.append(f"{id} {name}: deprecated")
        there = {key: (kind, options, needed) for key, kind, options, needed in entries(facts["input"], given)}
        found += [f"{id} {name}: {key} is missing" for key, (_, _, needed) in there.items() if needed and key not in given]
        for key, value in given.items():
            if key not in there:
                found += [] if f"{name}.{key}" in extra else [f"{id} {name}: there is no input {key}"]
            elif isinstance(value, list):
                source = workflow[str(value[0])]["class_type"]
                outputs = information[source]["output"] if source in information else []
                if value[1] >= len(outputs) or not fits(str(outputs[value[1]]), there[key][0]):
                    found.append(f"{id} {name}: {key} takes {there[key][0]} and is linked to output {value[1]} of {source}")
            else:
                found += [f"{id} {name}: {key} {wrong}" for wrong in wrong_values(value, *there[key][:2])]
    return found


def wrong_values(value, kind, options):
    """What is wrong with a value that is no link."""
    if kind not in WIDGETS:
        return [f"takes a link to {kind}"]
    offered = choices(kind, options)
    if offered is not None and value not in offered:
        return [f"is {value!r}, which the menu does not have"]
    if kind in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
        return [f"is {value}, which is out of range"]
    return []


def from_editor(drawn, information, later=()):
    """The API format of a workflow in the editor's, read as the editor reads it: values in the order of the widgets.

    Args:
        drawn: the file.
        information: of every class, as ``/object_info`` gives it.
        later: classes with widgets at the end that this version does not have; its editor passes over their values.

    Raises:
        AssertionError: a node has fewer or more values than its widgets take.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    workflow = {}
    for node in drawn["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        linked = {slot["name"]: links[slot["link"]] for slot in node.get("inputs", []) if slot.get("link") is not None}
        values = list(node.get("widgets_values", []))
        inputs = _read(information[node["type"]]["input"], values, {}, "")
        assert not values or node["type"] in later, f"node {node['id']} ({node['type']}) has more values than widgets: {values}"
        workflow[str(node["id"])] = {"class_type": node["type"], "inputs": inputs | linked}
    return workflow


def _read(groups, values, inputs, prefix):
    """Take values for the widgets of ``groups`` from the front of ``values``."""
    for key, kind, options, _ in list(
        entries({"required": groups.get("required"), "optional": groups.get("optional")}, {}, prefix)
    ):
        if kind not in WIDGETS or options.get("forceInput"):
            continue
        if not values:
            if options.get("hidden"):
                continue
            break  # inputs that came after the file was drawn take their usual values
        inputs[key] = values.pop(0)
        if kind == DYNAMIC:
            branch = [item for item in options["options"] if item["key"] == inputs[key]]
            if branch:
                _read(branch[0]["inputs"], values, inputs, key + ".")
        seed = key in ("seed", "noise_seed") and kind == "INT"
        if options.get("control_after_generate", seed) and values:
            assert values.pop(0) in ("fixed", "increment", "decrement", "randomize"), key
        if any(options.get(upload) for upload in ("image_upload", "video_upload", "audio_upload", "file_upload")) and values:
            assert values.pop(0) == "image", key
    return inputs
