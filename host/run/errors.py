"""What goes wrong with a workflow, in sentences that name the node, its class and the input."""

from collections.abc import Sequence


class WorkflowError(ValueError):
    """A workflow that cannot run; nothing of it was run.

    Attributes:
        problems: one sentence each, in the order of the nodes.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NodeError(RuntimeError):
    """A node that failed while it ran.

    Attributes:
        node: its id in the workflow.
        class_type: its class.
        reason: what it said.
    """

    def __init__(self, node: str, class_type: str, reason: str):
        self.node, self.class_type, self.reason = node, class_type, reason
        super().__init__(f"node {node} ({class_type}) failed: {reason}")
