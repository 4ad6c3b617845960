"""What of a frozen TensorFlow graph a picture still passes through at inference.

Facenet's graphs were trained with one graph for both modes: ``phase_train`` steers pairs
of Switch and Merge nodes around batch normalisation and dropout, and queues feed the
picture in. With every boolean placeholder false, one branch of each pair is dead; what is
left is a plain chain of operators from the picture to the output, in an order that can be
run. Identities vanish on the way.
Source: TensorFlow's ``control_flow_ops`` (dead tensors, Switch, Merge).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from facenet.errors import ModelFileError
from facenet.models.convert.graphdef import DType, Node

IMAGE_NAMES: Final = ("input", "image_batch")
"""Node names that stand for the picture whatever feeds them (queues, placeholders)."""

_PASS: Final = frozenset({"Identity", "StopGradient", "CheckNumerics", "Snapshot"})
_PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderWithDefault"})
_FLOAT: Final = 1
_BOOL: Final = 10

Port = tuple[str, int]
"""Output k of a node: (node name, k)."""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that is needed, with its data inputs resolved to the nodes that make them."""

    name: str
    op: str
    inputs: tuple[Port, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LiveGraph:
    """Needed nodes in an order that can be run; the picture and the output by name."""

    nodes: tuple[LiveNode, ...]
    image: str
    output: Port


def live_graph(nodes: Mapping[str, Node], output: str) -> LiveGraph:
    """The part of ``nodes`` that ``output`` needs at inference.

    Raises ModelFileError for a missing node, a loop, a switch whose condition is not
    known, or a graph without exactly one picture input.
    """
    target = _port(output)
    image = _image(nodes)
    flow = _Flow(nodes)
    for name in _ordered(target[0], lambda name: _all_inputs(nodes, name, image=image)):
        if name != image:
            flow.visit(nodes[name])
    resolved = flow.resolve(target)
    if flow.off(resolved) or flow.off(target):
        raise ModelFileError(f"expected an output that runs at inference, but {output!r} is off")
    wanted = _ordered(resolved[0], lambda name: [p[0] for p in flow.inputs(name, image)])
    live = tuple(
        LiveNode(name, nodes[name].op, flow.inputs(name, image), nodes[name].attrs)
        for name in wanted
    )
    if not any(node.name == image for node in live):
        raise ModelFileError(f"expected {output!r} to depend on {image!r}, but it does not")
    return LiveGraph(live, image, resolved)


def _dtype(node: Node) -> int:
    """The number of a placeholder's element type; 0 where it has none."""
    given = node.attrs.get("dtype")
    return given.number if isinstance(given, DType) else 0


def _port(reference: str) -> Port:
    name, colon, number = reference.partition(":")
    if colon and not number.isdecimal():
        raise ModelFileError(f"expected a tensor name like 'node:0', came {reference[:80]!r}")
    return name, int(number[:6]) if colon else 0


def _all_inputs(nodes: Mapping[str, Node], name: str, *, image: str) -> list[str]:
    """Names of a node's data and ordering inputs; the picture has none."""
    if name == image:
        return []
    node = nodes.get(name)
    if node is None:
        raise ModelFileError(f"expected a graph with a node {name!r}; there is none")
    return [_port(reference.lstrip("^"))[0] for reference in node.inputs]


def _image(nodes: Mapping[str, Node]) -> str:
    for name in IMAGE_NAMES:
        if name in nodes:
            return name
    found = [
        node.name for node in nodes.values() if node.op in _PLACEHOLDERS and _dtype(node) == _FLOAT
    ]
    if len(found) != 1:
        raise ModelFileError(
            f"expected one picture input, a node named {' or '.join(IMAGE_NAMES)} or one float "
            f"placeholder, but there are {len(found)} of them"
        )
    return found[0]


def _ordered(root: str, inputs: Callable[[str], list[str]]) -> list[str]:
    """Every name ``root`` depends on, each after its inputs; ModelFileError for a loop."""
    done: dict[str, bool] = {}
    order: list[str] = []
    stack = [(root, False)]
    while stack:
        name, leaving = stack.pop()
        if leaving:
            done[name] = True
            order.append(name)
        elif name not in done:
            done[name] = False
            stack.append((name, True))
            for other in reversed(inputs(name)):
                if done.get(other) is False:
                    raise ModelFileError(
                        f"expected a graph without loops, but {other!r} depends on itself"
                    )
                if other not in done:
                    stack.append((other, False))
    return order


@dataclass
class _Flow:
    """Which nodes and ports are dead and what each passing node stands for."""

    nodes: Mapping[str, Node]
    dead: set[str] = field(default_factory=set)
    dead_ports: set[Port] = field(default_factory=set)
    alias: dict[Port, Port] = field(default_factory=dict)
    truth: dict[str, bool] = field(default_factory=dict)

    def resolve(self, port: Port) -> Port:
        """The port that really makes a value; earlier nodes are resolved already."""
        return self.alias.get(port, port)

    def inputs(self, name: str, image: str) -> tuple[Port, ...]:
        """A node's data inputs, resolved; the picture has none."""
        if name == image:
            return ()
        references = (r for r in self.nodes[name].inputs if not r.startswith("^"))
        return tuple(self.resolve(_port(reference)) for reference in references)

    def off(self, port: Port) -> bool:
        """Whether a value never arrives at inference."""
        return port in self.dead_ports or port[0] in self.dead

    def visit(self, node: Node) -> None:
        """Take in a node all of whose inputs were visited."""
        data = [_port(r) for r in node.inputs if not r.startswith("^")]
        orders = [_port(r[1:]) for r in node.inputs if r.startswith("^")]
        self._learn(node, data)
        if node.op in ("Merge", "RefMerge"):
            self._merge(node, data)
        elif any(self.off(self.resolve(port)) or self.off(port) for port in data + orders):
            self.dead.add(node.name)
        elif node.op in ("Switch", "RefSwitch") and len(data) == 2:
            self._switch(node, data)
        elif node.op in _PASS and data:
            self.alias[(node.name, 0)] = self.resolve(data[0])

    def _learn(self, node: Node, data: list[Port]) -> None:
        """Remember a boolean that is known: training is off."""
        value = node.attrs.get("value")
        if node.op in _PLACEHOLDERS and _dtype(node) == _BOOL:
            self.truth[node.name] = False
        elif node.op == "Const" and isinstance(value, np.ndarray) and value.size == 1:
            self.truth[node.name] = bool(value.reshape(())[()])
        elif data and self.resolve(data[0])[0] in self.truth:
            known = self.truth[self.resolve(data[0])[0]]
            if node.op == "LogicalNot":
                self.truth[node.name] = not known
            elif node.op in _PASS:
                self.truth[node.name] = known

    def _switch(self, node: Node, data: list[Port]) -> None:
        condition = self.resolve(data[1])[0]
        if condition not in self.truth:
            raise ModelFileError(
                f"expected the switch {node.name!r} to hang on phase_train or a constant, "
                f"but it hangs on {condition!r}"
            )
        taken = int(self.truth[condition])
        self.dead_ports.add((node.name, 1 - taken))
        self.alias[(node.name, taken)] = self.resolve(data[0])

    def _merge(self, node: Node, data: list[Port]) -> None:
        alive = [self.resolve(port) for port in data if not self._gone(port)]
        if len(alive) > 1:
            raise ModelFileError(
                f"expected one live input of {node.name!r}, but {len(alive)} are; "
                "freeze the graph for inference"
            )
        if alive:
            self.alias[(node.name, 0)] = alive[0]
        else:
            self.dead.add(node.name)

    def _gone(self, port: Port) -> bool:
        return self.off(port) or self.off(self.resolve(port))
