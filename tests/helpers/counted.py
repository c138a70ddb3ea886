"""Nodes of the standalone host that tell how often they ran."""

import torch
from pack.host.standalone import core_nodes, ui
from pack.host.standalone import schema as io
from pack.host.standalone.executor import Executor


class Counted(io.ComfyNode):
    """Gives a number, and counts how often it was asked."""

    runs = []

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Counted",
            inputs=[
                io.Int.Input("value", default=3, min=1, max=9),
                io.Combo.Input("kind", options=["plain", "fancy"], optional=True),
                io.Boolean.Input("flag", optional=True),
            ],
            outputs=[io.Int.Output(), io.Image.Output()],
        )

    @classmethod
    def execute(cls, value, kind="plain", flag=False):
        Counted.runs.append(value)
        if value == 9:
            raise ValueError("nine is too many")
        return io.NodeOutput(value, torch.full((2, 4, 6, 3), value / 10))


class Shown(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Shown",
            inputs=[io.Int.Input("number", default=0), io.Float.Input("factor", default=1.0)],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, number, factor):
        Counted.runs.append("shown")
        return io.NodeOutput(ui=ui.PreviewText(f"{number * factor:g}"))


class Changing(io.ComfyNode):
    fingerprint = 0

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Changing", outputs=[io.Int.Output()])

    @classmethod
    def fingerprint_inputs(cls):
        return Changing.fingerprint

    @classmethod
    def execute(cls):
        Counted.runs.append("changing")
        return io.NodeOutput(1)


NODES = core_nodes.core_nodes() | {"Counted": Counted, "Shown": Shown, "Changing": Changing}


def graph(**changes):
    nodes = {
        "1": {"class_type": "Counted", "inputs": {"value": 4}},
        "2": {"class_type": "Shown", "inputs": {"number": ["1", 0], "factor": 2.0}},
    }
    return nodes | changes


def executor_in(folder):
    """An executor whose folders are empty ones in ``folder``; the nodes have not run yet."""
    Counted.runs.clear()
    folders = {name: folder / name for name in ("output", "input", "temp")}
    folders["input"].mkdir()
    return Executor(NODES, **folders, report=lambda report: None)
