"""Nodes, their schemas, and sockets of any kind."""

from types import SimpleNamespace


class Part(SimpleNamespace):
    """An input or output: a kind of socket, a name, and what else was said of it."""


class Kind:
    def __init__(self, name):
        self.name = name

    def Input(self, id, **more):
        return Part(kind=self.name, io_type=self.name, id=id, extra_dict={}, **{"optional": False, **more})

    def Output(self, **more):
        return Part(kind=self.name, **more)


class NodeOutput:
    def __init__(self, *result, ui=None):
        self.result, self.ui = result, ui


class Schema(Part):
    def __init__(self, node_id, search_aliases=None, **more):
        super().__init__(node_id=node_id, search_aliases=search_aliases, **more)


class Io:
    Custom = Kind
    NodeOutput = NodeOutput
    ComfyNode = type("ComfyNode", (), {})
    Schema = Schema

    def __getattr__(self, name):
        return Kind(name.upper())


class ComfyExtension:
    pass


io = Io()
ui = SimpleNamespace(PreviewText=lambda text: Part(text=text))
