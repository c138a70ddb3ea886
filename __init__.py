"""ComfyUI's entry point. Nothing is imported until ComfyUI asks for the nodes."""

TYPE_CHECKING = False  # type checkers take it for true
if TYPE_CHECKING:
    from .host.port import Host

    host: Host  # what nodes see of the module

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import Extension

    return Extension()
