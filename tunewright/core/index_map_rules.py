"""What an index map of a trace may be made of: integer arithmetic of its own variables, and no more.

A map stands in a trace as text: TVM's JSON graph, a list of nodes that refer to each other by position. TVM
builds whatever object type a node names, and only then looks whether it got a map; so the nodes are checked
before. A node may refer to earlier ones only, as TVM writes them, which also excludes cycles.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tunewright.core.errors import UntrustedTraceError
from tunewright.core.untrusted_json import parse_untrusted, shown

_MAX_BYTES = 1 << 16
_MAX_JSON_DEPTH = 8
_MAX_NODES = 2048
_MAX_AXES = 32
# Nodes may be shared, and TVM walks expressions as trees, by recursion: both sizes are those of the tree.
_MAX_TREE_SIZE = 1024
_MAX_TREE_DEPTH = 64
_MAX_INTEGER = 2**31 - 1
_DTYPES = ("int32", "int64")
_ARITHMETIC = ("prim.Add", "prim.Sub", "prim.Mul")
_DIVISIONS = ("prim.FloorDiv", "prim.FloorMod")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# What TVM calls a schedule's own variables: it would put those of the schedule in the place of the map's.
_RANDOM_VARIABLE = re.compile(r"[blv][0-9]+")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}")


@dataclass(frozen=True, slots=True)
class _Nothing:
    """The node that stands for "no value"."""


@dataclass(frozen=True, slots=True)
class _Type:
    """A scalar type."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Number:
    value: int


@dataclass(frozen=True, slots=True)
class _Expression:
    """`variables`: positions of those it reads. `constant`: its value where it is a literal."""

    size: int
    depth: int
    variables: frozenset[int]
    constant: int | None = None
    is_variable: bool = False


@dataclass(frozen=True, slots=True)
class _Array:
    items: tuple[_Expression, ...]


@dataclass(frozen=True, slots=True)
class _Map:
    has_inverse: bool


_Kind = TypeVar("_Kind")
_Node = _Nothing | _Type | _Text | _Number | _Expression | _Array | _Map


def check_index_map(text: str) -> None:
    """Check the text of an index map.

    Raises:
        UntrustedTraceError: it is none, or one that no layout needs.
    """
    if not text.isascii() or "\\" in text:
        # Where there are no escapes, TVM's JSON parser and Python's cannot disagree about a text.
        raise UntrustedTraceError("the index map's text has escapes or is not ASCII")
    graph = parse_untrusted(text, "the index map", max_bytes=_MAX_BYTES, max_depth=_MAX_JSON_DEPTH)
    fields = _object(graph, "the index map", required=("root_index", "nodes"), optional=("metadata",))
    if "metadata" in fields:
        metadata = _object(fields["metadata"], "the index map's metadata", required=("tvm_version",))
        _matching(metadata["tvm_version"], _VERSION, "version")
    plain_nodes = fields["nodes"]
    if not isinstance(plain_nodes, list) or len(plain_nodes) > _MAX_NODES:
        raise UntrustedTraceError(f"the index map has no list of at most {_MAX_NODES} nodes")
    nodes: list[_Node] = []
    for position, plain in enumerate(plain_nodes):
        try:
            nodes.append(_node(plain, nodes))
        except UntrustedTraceError as exc:
            raise UntrustedTraceError(f"node {position} of the index map: {exc}") from None
    _referred(nodes, fields["root_index"], _Map)


def _node(plain: Any, nodes: Sequence[_Node]) -> _Node:
    """What one node says, given those before it."""
    if plain == {"type": "None"}:
        return _Nothing()
    fields = _object(plain, "the node", required=("type", "data"))
    kind, data = fields["type"], fields["data"]
    if not isinstance(kind, str) or kind not in _READERS:
        raise UntrustedTraceError(f"the type {shown(kind)} is not allowed")
    return _READERS[kind](data, nodes)


def _read_text(data: Any, _nodes: Sequence[_Node]) -> _Node:
    name = _matching(data, _NAME, "name")
    if _RANDOM_VARIABLE.fullmatch(name):
        raise UntrustedTraceError(f"the name {name} is one of the schedule's own variables")
    return _Text(name)


def _read_number(data: Any, _nodes: Sequence[_Node]) -> _Node:
    if type(data) is not int or not 0 <= data <= _MAX_INTEGER:
        raise UntrustedTraceError(f"{shown(data)} is no integer from 0 to {_MAX_INTEGER}")
    return _Number(data)


def _read_type(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _object(data, "the type", required=("span", "dtype"))
    _referred(nodes, fields["span"], _Nothing)
    if fields["dtype"] not in _DTYPES:
        raise UntrustedTraceError(f"the type {shown(fields['dtype'])} is none of {', '.join(_DTYPES)}")
    return _Type()


def _read_array(data: Any, nodes: Sequence[_Node]) -> _Node:
    if not isinstance(data, list) or not 1 <= len(data) <= _MAX_AXES:
        raise UntrustedTraceError(f"an array has no list of 1 to {_MAX_AXES} items")
    return _Array(tuple(_referred(nodes, item, _Expression) for item in data))


def _read_variable(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _typed(data, nodes, "name")
    _referred(nodes, fields["name"], _Text)
    return _Expression(1, 1, frozenset({len(nodes)}), is_variable=True)


def _read_literal(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _typed(data, nodes, "value")
    return _Expression(1, 1, frozenset(), _referred(nodes, fields["value"], _Number).value)


def _read_cast(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _typed(data, nodes, "value")
    return _combined(_referred(nodes, fields["value"], _Expression))


def _read_arithmetic(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _typed(data, nodes, "a", "b")
    return _combined(*(_referred(nodes, fields[name], _Expression) for name in "ab"))


def _read_division(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _typed(data, nodes, "a", "b")
    divisor = _referred(nodes, fields["b"], _Expression)
    if not divisor.constant:
        raise UntrustedTraceError("a division by what is no positive literal is not allowed")
    return _combined(_referred(nodes, fields["a"], _Expression), divisor)


def _read_map(data: Any, nodes: Sequence[_Node]) -> _Node:
    fields = _object(data, "the map", required=("initial_indices", "final_indices", "inverse_index_map"))
    initial = _referred(nodes, fields["initial_indices"], _Array).items
    final = _referred(nodes, fields["final_indices"], _Array).items
    own = frozenset[int]().union(*(item.variables for item in initial))
    if not all(item.is_variable for item in initial) or len(own) != len(initial):
        raise UntrustedTraceError("the map's axes are not all different variables")
    if not all(item.variables <= own for item in final):
        raise UntrustedTraceError("the map reads a variable that is none of its axes")
    match _referred(nodes, fields["inverse_index_map"], object):
        case _Nothing():
            return _Map(has_inverse=False)
        case _Map(has_inverse=False):
            return _Map(has_inverse=True)
    raise UntrustedTraceError("the map's inverse is no map, or has an inverse of its own")


_READERS: Mapping[str, Callable[[Any, Sequence[_Node]], _Node]] = {
    "ffi.String": _read_text,
    "ffi.Array": _read_array,
    "int": _read_number,
    "ir.PrimType": _read_type,
    "ir.Var": _read_variable,
    "ir.IntImm": _read_literal,
    "prim.Cast": _read_cast,
    **dict.fromkeys(_ARITHMETIC, _read_arithmetic),
    **dict.fromkeys(_DIVISIONS, _read_division),
    "tirx.IndexMap": _read_map,
}


def _combined(*parts: _Expression) -> _Expression:
    size = 1 + sum(part.size for part in parts)
    depth = 1 + max(part.depth for part in parts)
    if size > _MAX_TREE_SIZE or depth > _MAX_TREE_DEPTH:
        raise UntrustedTraceError(
            f"an expression of more than {_MAX_TREE_SIZE} terms or {_MAX_TREE_DEPTH} levels is not allowed"
        )
    return _Expression(size, depth, frozenset[int]().union(*(part.variables for part in parts)))


def _typed(data: Any, nodes: Sequence[_Node], *names: str) -> dict[str, Any]:
    """The fields of an expression, which has a type and no place in a source."""
    fields = _object(data, "the expression", required=("span", "ty", *names))
    _referred(nodes, fields["span"], _Nothing)
    _referred(nodes, fields["ty"], _Type)
    return fields


def _referred(nodes: Sequence[_Node], position: Any, kind: type[_Kind]) -> _Kind:
    """The earlier node at a position, which must be of a kind."""
    if type(position) is not int or not 0 <= position < len(nodes):
        raise UntrustedTraceError(f"{shown(position)} is the position of no earlier node")
    node = nodes[position]
    if not isinstance(node, kind):
        raise UntrustedTraceError(f"node {position} is not of the kind that is needed")
    return node


def _object(
    value: Any, what: str, *, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(required) <= set(value) <= {*required, *optional}:
        raise UntrustedTraceError(f"{what} is not made of {', '.join((*required, *optional))}")
    return value


def _matching(value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise UntrustedTraceError(f"{shown(value)} is not allowed as a {what}")
    return value
