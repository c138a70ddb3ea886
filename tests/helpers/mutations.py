"""Files of weights, damaged or made to do harm: each change of one right file is drawn from a seed."""

import codecs
import io
import json
import math
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I8", "U8", "BOOL", "C64", "F8_E8M0", "F4", "F99")
NUMBERS = (0, 3, 17, 300, 10**6, 10**18, 10**60)
NUMBERS_ODD = (-1, 0, 1, 3, 2**31, 10**30, 0.5, -0.0, math.nan, math.inf)
ODD = (*NUMBERS_ODD, None, True, "", "x", "a\nb", "\ud800", "x" * 5000, [], [[]], {}, {"a": 1}, [1] * 500)
DEEP = 100_000
PLACES = ("down_blocks", "input_blocks", "layers", "attention_blocks", "blocks", "resnets", "ip_adapter")


# safetensors: a header, and the bytes that it names


def parsed(path: Path):
    """(metadata, [type, shape, bytes] of each weight)."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    about = header.pop("__metadata__", {})
    return about, {key: [entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]] for key, entry in header.items()}


def header_of(about, weights):
    """(header, bytes), each of which is named once."""
    header, data = ({"__metadata__": about} if about else {}), bytearray()
    for key, (dtype, shape, part) in weights.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    return header, data


def written(path: Path, header, data, size=None) -> None:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + bytes(data))


def _other_numbers(draw, weights):
    key = draw.choice(list(weights))
    name, value = draw.choice(VALUES)
    tensor = torch.ones(weights[key][1]).to(value.dtype).clone()
    tensor.view(-1)[draw.randrange(tensor.numel())] = value
    weights[key] = [name, weights[key][1], tensor.flatten().view(torch.uint8).numpy().tobytes()]


VALUES = (
    ("F32", torch.tensor(math.nan)),
    ("F32", torch.tensor(-math.inf)),
    ("F16", torch.tensor(math.nan, dtype=torch.float16)),
    ("F64", torch.tensor(1e300, dtype=torch.float64)),
    ("I64", torch.tensor(3)),
    ("BOOL", torch.tensor(True)),
    ("C64", torch.tensor(1j, dtype=torch.complex64)),
)


def _other_shape(draw, weights):
    entry = weights[draw.choice(list(weights))]
    shape = entry[1]
    near = (shape[:-1], [*shape, 1], [1, *shape], shape[::-1], [math.prod(shape)], [1, 1, 1, 1, *shape])
    far = ([0], [0, 10**6], [2**62, 4], [10**12, *shape], [-1])
    entry[1] = draw.choice(near + far)
    if draw.random() < 0.7 and 0 <= math.prod(entry[1]) < 10**7:
        entry[2] = (entry[2] + bytes(4 * 10**6))[: math.prod(entry[1]) * len(entry[2]) // max(1, math.prod(shape))]


def _other_key(draw, weights):
    """A key that nobody writes, with the numbers of the loops that it may end up in."""
    key = draw.choice(list(weights))
    parts = key.split(".")
    numbered = [place for place, part in enumerate(parts) if part.isdigit()]
    change = draw.randrange(7)
    if change < 3 and numbered:
        parts[draw.choice(numbered)] = str(draw.choice(NUMBERS))
    elif change == 3:
        parts.pop(draw.randrange(len(parts)))
    elif change == 4:
        parts.insert(draw.randrange(len(parts)), draw.choice(("\n", "a\x00", "\u202e", "weight" * 2000, "module", "9" * 5000)))
    elif change == 5:
        parts = [draw.choice(PLACES), str(draw.choice(NUMBERS)), *parts[1:]]
    else:
        parts[-1] = draw.choice(("bias", "alpha", "up", "weight", ""))
    weights[".".join(parts)] = list(weights[key] if draw.random() < 0.5 else weights.pop(key))


def _other_text(draw, about):
    """A description that is none, of any depth and with any value anywhere."""
    name = draw.choice([*about, *DESCRIPTIONS] if draw.random() < 0.2 or not about else list(about))
    text = about.get(name, "{}")
    if draw.random() < 0.2:
        about[name] = draw.choice(("", "{", "[" * DEEP, '{"a":' * DEEP, "null", "[]", '"x"', "1e999", text[: len(text) // 2]))
        return
    value = json.loads(text) if text.startswith("{") else {}
    holder, place = {"": value}, ""
    while isinstance(holder[place], dict | list) and holder[place] and (place == "" or draw.random() < 0.5):
        holder = holder[place]
        place = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if draw.random() < 0.2 and place != "":
        del holder[place]
    else:
        holder["more" if isinstance(holder, dict) and place and draw.random() < 0.1 else place] = draw.choice(ODD)
    about[name] = json.dumps(value)


DESCRIPTIONS = ("longtake", "lora_adapter_metadata", "longtake_sparse_control", "pictures")


def _bits(draw, path, reach):
    raw = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 4, 50))):
        raw[draw.randrange(min(len(raw), reach))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def _safetensors(draw: random.Random, path: Path) -> None:
    about, weights = parsed(path)
    change = draw.randrange(12)
    if change in {0, 1}:
        return _bits(draw, path, 4000 if change else 10**9)
    if change == 2:
        raw = path.read_bytes()
        return path.write_bytes(raw[: draw.randrange(len(raw))])
    if change == 3:
        return written(path, *header_of(about, weights), draw.choice((0, 1, 2**20, 2**40, 2**64 - 1)))
    if change == 4:
        header, data = header_of(about, weights)
        odd = ([0, 0], [0, 2**63], [-4, 4], [8, 4], [len(data), len(data)])
        header[draw.choice(list(weights))]["data_offsets"] = draw.choice(odd)
        return written(path, header, data)
    if change == 5:
        weights[draw.choice(list(weights))][0] = draw.choice(DTYPES)
    elif change == 6:
        weights.pop(draw.choice(list(weights)))
    elif change in {7, 8}:
        _other_key(draw, weights)
    elif change == 9:
        _other_shape(draw, weights)
    elif change == 10:
        _other_numbers(draw, weights)
    else:
        _other_text(draw, about)
    return written(path, *header_of(about, weights))


# PyTorch's own files


class Named:
    """An object that is pickled as a call of something by name."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _tensor(draw, state):
    """One weight in the place of another kind of tensor."""
    key = draw.choice(list(state))
    old = state[key]
    large = (10**5, 10**5)
    made = draw.choice(
        (
            lambda: torch.zeros(1).expand(*large),
            lambda: torch.zeros(1).expand(old.shape),
            lambda: torch.zeros(64).as_strided((32, 33), (1, 1)),
            lambda: old.to_sparse(),
            lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], large),
            lambda: old.flatten().to("meta").expand(old.numel()),
            lambda: torch.empty(large, device="meta"),
            lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
            lambda: torch.quantize_per_tensor(old.float(), 0.1, 0, torch.qint8),
            lambda: torch.nn.Parameter(old),
            lambda: old.to(draw.choice((torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float64))),
            lambda: torch.full_like(old, draw.choice((math.nan, math.inf))),
            lambda: old.flatten(),
            lambda: old.reshape(-1)[0],
            lambda: old[:0],
            lambda: old[None],
            lambda: old.t() if old.ndim == 2 else old.flip(0),
            lambda: Named(bytearray, 10**11),
            lambda: Named(torch.Tensor, 10**10),
            lambda: Named(codecs.encode, Named(codecs.encode, b"x" * 1000, "hex"), "hex"),
            lambda: Named(print, "run"),
            lambda: draw.choice(ODD),
        )
    )()
    state[key] = made


def _wrapped(draw, state):
    table = OrderedDict(state)
    choice = draw.randrange(6)
    if choice == 0:
        table.get = torch.zeros(1)
    elif choice == 1:
        return {"state_dict": draw.choice(([], {}, {"state_dict": state}, "x", torch.zeros(2)))}
    elif choice == 2:
        return {**state, **{f"module.{key}": value for key, value in list(state.items())[:1]}}
    elif choice == 3:
        return {draw.choice((None, 3, b"x", "state_dict", "\n")): state, **state}
    elif choice == 4:
        return draw.choice((list(state.items()), torch.zeros(3), None, 3, {"state_dict": table, "controlnet": table}))
    return table


def _records(path, change, level=1):
    """An archive with its records changed and its sums right."""
    with zipfile.ZipFile(path) as old:
        parts = [(part.filename, old.read(part)) for part in old.infolist()]
    kept, kind = change(parts)
    with zipfile.ZipFile(path, "w", kind, compresslevel=level) as new:
        for name, value in kept:
            new.writestr(name, value)


def packed(path) -> None:
    """Make the records of an archive smaller, as other programs do."""
    _records(path, lambda parts: (parts, zipfile.ZIP_DEFLATED), level=9)


def _edited(draw, parts):
    """One byte of the pickle is another one."""
    for place, (name, value) in enumerate(parts):
        if name.endswith(".pkl"):
            text = bytearray(value)
            for _ in range(draw.choice((1, 1, 3))):
                text[draw.randrange(len(text))] = draw.choice(
                    (0, 1, 46, 66, 74, 82, 88, 98, 113, 127, 128, 255, draw.randrange(256))
                )
            parts[place] = name, bytes(text)
    return parts, zipfile.ZIP_STORED


def _pickled(draw: random.Random, path: Path) -> None:
    change = draw.randrange(10)
    if change == 0:
        _bits(draw, path, 10**9)
    elif change == 1:
        raw = path.read_bytes()
        path.write_bytes(raw[: draw.randrange(len(raw))])
    elif change in {2, 3}:
        _records(path, lambda parts: _edited(draw, parts))
    elif change == 4:
        _records(
            path,
            lambda parts: (
                [part for part in parts if draw.random() < 0.8],
                draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
            ),
        )
    elif change == 5:
        path.write_bytes(draw.choice((b"", b"PK\x03\x04", b"\x80\x02}q\x00.", pickle.dumps({"a": 1}), b"(" * 5000, b"x" * 100)))
    else:
        state = torch.load(path, weights_only=True)
        old = draw.random() < 0.25
        content = state
        if change == 6:
            content = _wrapped(draw, state)
        else:
            _tensor(draw, state)
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=not old)
        raw = bytearray(file.getvalue())
        if old and draw.random() < 0.5:
            raw[draw.randrange(min(len(raw), 3000))] = draw.randrange(256)
        path.write_bytes(raw)


def mutate(path: Path, seed: str) -> None:
    """Change a right file in one way."""
    draw = random.Random(seed)
    (_safetensors if path.suffix == ".safetensors" else _pickled)(draw, path)
