"""Traces from outside: what tuners write passes, what an attacker would write is refused."""

import copy
import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import TunewrightError, UntrustedTraceError
from tunewright.core.trace_rules import INTRINSICS, MAX_INSTRUCTIONS, MAX_TRACE_BYTES, check_trace

Plain = Any
REAL: list[dict[str, str]] = json.loads(
    gzip.decompress(Path(__file__, "../data/real_traces.json.gz").resolve().read_bytes())
)
NAMES = [f"{number}-{real['source']}" for number, real in enumerate(REAL)]

SMALL: Plain = [
    [
        ["GetSBlock", [], ["matmul", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1", "l2", "l3"]],
        ["SamplePerfectTile", ["l1"], [2, 64], ["v4", "v5"]],
        ["Split", ["l1", "v4", "v5"], [True, False], ["l6", "l7"]],
        ["SampleCategorical", [], [[0, 16], [0.5, 0.5]], ["v8"]],
        ["Annotate", ["b0", "v8"], ["meta_schedule.unroll_explicit"], []],
        ["SampleComputeLocation", ["b0"], [], ["l9"]],
        ["EnterPostproc", [], [], []],
        ["Tensorize", ["b0"], [INTRINSICS[0], True], []],
    ],
    [[2, [8, 4]], [4, 1], [6, -1]],
]
TILE, SPLIT, CHOICE, ANNOTATION, LOCATION, TENSORIZE = 2, 3, 4, 5, 6, 8


def refused(trace: Plain | str) -> str:
    """The message with which a trace, as text or as plain data, is refused."""
    with pytest.raises(UntrustedTraceError) as caught:
        check_trace(trace if isinstance(trace, str) else json.dumps(trace))
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


def edited(edit: Callable[[Plain, Plain], object]) -> Plain:
    """The small trace after a change to its instructions and decisions."""
    trace = copy.deepcopy(SMALL)
    edit(*trace)
    return trace


def with_instruction(*instruction: Plain) -> Plain:
    return edited(lambda instructions, _: instructions.append(list(instruction)))


@pytest.mark.parametrize("real", REAL, ids=NAMES)
def test_what_tuners_write_passes(real: dict[str, str]) -> None:
    check_trace(real["trace"])
    check_trace(json.dumps(json.loads(real["trace"]), indent=1))


def test_the_small_trace_passes_and_so_does_the_empty_one() -> None:
    check_trace(json.dumps(SMALL))
    check_trace("[[], []]")
    check_trace(json.dumps(with_instruction("ComputeAt", ["b0", "l9"], [True, -1], [])))
    assert issubclass(UntrustedTraceError, TunewrightError)


@pytest.mark.parametrize(
    "key",
    ["pragma_import_llvm", "pragma_import_c", "pragma_debug_skip_region", "schedule_rule", "", None, []],
)
def test_annotations_that_no_tuner_makes_are_refused(key: Plain) -> None:
    message = refused(with_instruction("Annotate", ["b0", '"/tmp/evil.ll"'], [key], []))
    assert message.startswith("instruction 9 (Annotate): the annotation ") and ascii(key) in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pragma_auto_unroll_max_step", 10**9),
        ("pragma_auto_unroll_max_step", -1),
        ("pragma_auto_unroll_max_step", '"512"'),
        ("pragma_unroll_explicit", 2),
        ("meta_schedule.parallel", "l1"),
        ("meta_schedule.unroll_explicit", "b0"),
        ("meta_schedule.tiling_structure", '"SSRSRS; evil"'),
        ("meta_schedule.tiling_structure", {"a": 1}),
        ("software_pipeline_stage", [0, 1, "b0"]),
        ("meta_schedule.layout_rewrite_preproc", 1.0),
    ],
)
def test_annotations_have_values_of_their_own_types_and_sizes(key: str, value: Plain) -> None:
    assert "instruction 9 (Annotate)" in refused(with_instruction("Annotate", ["b0", value], [key], []))


@pytest.mark.parametrize("index", [99, 9, -1, 2**63, 10**30, 1.0, True, "2", None, [2]])
def test_a_decision_for_no_instruction_is_refused(index: Plain) -> None:
    assert "decision 0" in refused(edited(lambda _, decisions: decisions.insert(0, [index, [8, 4]])))


def test_decisions_belong_to_sampling_and_come_once() -> None:
    assert "instruction 3 (Split): it samples nothing" in refused(
        edited(lambda _, decisions: decisions.append([SPLIT, [8, 4]]))
    )
    assert "instruction 2 (SamplePerfectTile): it has two" in refused(
        edited(lambda _, decisions: decisions.append([TILE, [8, 4]]))
    )
    # Left to TVM it would be drawn, and the trace would stand for another program each time.
    assert "instruction 6 (SampleComputeLocation): it has no decision" in refused(
        edited(lambda _, decisions: decisions.pop())
    )


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, [8]),
        (0, [8, 4, 1]),
        (0, [8, 0]),  # TVM divides by it
        (0, [8, -4]),
        (0, [8, 4.0]),
        (0, [8, 2**31]),
        (0, 8),
        (1, 2),
        (1, -1),
        (1, [1]),
        (1, True),
        (2, -3),
        (2, 10**6),
        (2, "l1"),
    ],
)
def test_a_decision_has_the_form_of_its_instruction(place: int, value: Plain) -> None:
    assert "its decision" in refused(edited(lambda _, decisions: decisions[place].__setitem__(1, value)))


@pytest.mark.parametrize(
    "instruction",
    [
        ["UnsafeSetDType", ["b0"], [0, "int8"], []],
        ["UnsafeHideBufferAccess", ["b0", '"read"', [0]], [], []],
        ["StorageAlign", ["b0"], [0, 0, 1, 1], []],
        ["TransformBlockLayout", ["b0"], ["{}"], []],
        ["import os", [], [], []],
        [["Split"], [], [], []],
        [None, [], [], []],
        ["Parallel", ["l1"], []],
        ["Parallel", ["l1"], [], [], []],
        ["Parallel", "l1", [], []],
        ["Parallel", {"l1": 1}, [], []],
        "Parallel",
        None,
    ],
)
def test_unknown_instructions_and_other_forms_are_refused(instruction: Plain) -> None:
    assert refused(edited(lambda instructions, _: instructions.append(instruction))).startswith(
        "instruction 9 ("
    )


@pytest.mark.parametrize(
    "instruction",
    [
        ["Parallel", ["l99"], [], []],
        ["Parallel", ["b0"], [], []],
        ["Parallel", ["None"], [], []],
        ["Parallel", ["_"], [], []],
        ["Parallel", [1], [], []],
        ["Parallel", [["l1"]], [], []],
        ["Parallel", [], [], []],
        ["Parallel", ["l1", "l2"], [], []],
        ["Parallel", ["l1"], [1], []],
        ["Parallel", ["l1"], [], ["l20"]],
        ["Unroll", ["l9"], [], []],  # no loop but a location: where that is the root, TVM crashes
        ["Annotate", ["l9", 1], ["pragma_unroll_explicit"], []],
        ["GetSBlock", [], ["root", "main"], ["b0"]],  # a second time
        ["GetSBlock", [], ["root", "main"], ["l20"]],
        ["GetSBlock", [], ["root", "main"], ["None"]],
        ["GetSBlock", [], ["root", "main"], ["b00"]],
        ["GetSBlock", [], ["root", "main"], []],
        ["GetSBlock", [], ["root", "other"], ["b20"]],
        ["GetSBlock", [], ["", "main"], ["b20"]],
        ["GetSBlock", [], ["r" * 300, "main"], ["b20"]],
        ["GetSBlock", [], ["a\0b", "main"], ["b20"]],
        ["GetSBlock", [], ["\ud800", "main"], ["b20"]],
        ["Split", ["l1", "None", "None"], [True, False], ["l20", "l21"]],
        ["Split", ["l1", "None", 4], [True, False], ["l20"]],
        ["Split", ["l1", "None", 0], [True, False], ["l20", "l21"]],
        ["Split", ["l1", "None", 4], [True, True], ["l20", "l21"]],  # without predicates
        ["ComputeAt", ["b0", "l1"], [1, 3], []],
        ["Bind", ["l1"], ["threadIdx.w"], []],
        ["CacheRead", ["b0", []], [-1, "global"], ["b20"]],
        ["CacheRead", ["b0", []], [0, "texture"], ["b20"]],
        ["CacheRead", ["b0", ["l1"]], [0, "global"], ["b20"]],
        ["RFactor", ["l1"], [-1], ["b20"]],
        ["SampleCategorical", [], [[1, 2], [1.0]], ["v20"]],
        ["SamplePerfectTile", ["l1"], [3, 64], ["v20", "v21"]],
        ["SamplePerfectTile", ["l1"], [2, 0], ["v20", "v21"]],
        ["Tensorize", ["b0"], ["wmma_sync_16x16x16_f16f16f32", True], []],
        ["Tensorize", ["b0"], [INTRINSICS[0] + "\0", True], []],
    ],
)
def test_arguments_out_of_range_are_refused(instruction: Plain) -> None:
    assert f"instruction 9 ({instruction[0]}): " in refused(with_instruction(*instruction))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[]",
        "[[], [], []]",
        "[[], {}]",
        '[{"a": 1, "a": 2}, []]',
        "[[], []] []",
        "[[], [",
        '[["',
        '[["\\',
        "\ufeff[[], []]",
        "\ud800",
        "[[NaN], []]",
        "[[], [[0, -Infinity]]]",
        "[[], [[0, 1e999]]]",
        "[[], [[0, " + "9" * 5000 + "]]]",
        "[[], [[0, 1." + "9" * 5000 + "]]]",
        "[" * 17 + "]" * 17,
        "[" * 500_000,
        '{"a":' * 100_000,
        "]" * 500_000,
        '"' + '\\"' * 500_000,
        '["' * 300_000,
        "[[], []" + " " * MAX_TRACE_BYTES + "]",
        "[[], [" + "é" * (MAX_TRACE_BYTES // 2) + "]]",
    ],
)
def test_texts_that_are_no_traces_are_refused(text: str) -> None:
    refused(text)


def test_limits_of_text_and_of_length_are_exact() -> None:
    check_trace("[[],[]]".ljust(MAX_TRACE_BYTES))
    refused("[[],[]]".ljust(MAX_TRACE_BYTES + 1))
    postproc = ["EnterPostproc", [], [], []]
    check_trace(json.dumps([[postproc] * MAX_INSTRUCTIONS, []]))
    assert "4097 instructions" in refused([[postproc] * (MAX_INSTRUCTIONS + 1), []])


def index_map_instruction() -> tuple[Plain, int, Plain]:
    """A real trace with an index map, the position of its instruction, and the map as plain data."""
    for real in REAL:
        trace = json.loads(real["trace"])
        for position, instruction in enumerate(trace[0]):
            if instruction[0] == "TransformLayout":
                return trace, position, json.loads(instruction[1][1])
    raise AssertionError("no real trace transforms a layout")


def a_node(graph: Plain, kind: str) -> Plain:
    return next(node for node in graph["nodes"] if node["type"] == kind)


INDEX_MAP_EDITS: dict[str, Callable[[Plain], object]] = {
    "another type of object": lambda g: g["nodes"].insert(0, {"type": "tirx.Call", "data": {"op": 0}}),
    "a module": lambda g: g["nodes"].append({"type": "ffi.Module", "data": "AAAA"}),
    "a string for an integer": lambda g: a_node(g, "int").update(data="1"),
    "a negative integer": lambda g: a_node(g, "int").update(data=-1),
    "a float": lambda g: a_node(g, "int").update(data=1.5),
    "a division by zero": lambda g: [n.update(data=0) for n in g["nodes"] if n["type"] == "int"],
    "a division by a variable": lambda g: a_node(g, "prim.FloorDiv")["data"].update(
        b=g["nodes"].index(a_node(g, "ir.Var"))
    ),
    "another type of number": lambda g: a_node(g, "ir.PrimType")["data"].update(dtype="handle"),
    "a cycle": lambda g: a_node(g, "prim.FloorDiv")["data"].update(
        a=g["nodes"].index(a_node(g, "prim.FloorDiv"))
    ),
    "a later node": lambda g: a_node(g, "prim.FloorDiv")["data"].update(a=len(g["nodes"]) - 1),
    "no node": lambda g: a_node(g, "prim.FloorDiv")["data"].update(a=10**6),
    "a negative position": lambda g: a_node(g, "prim.FloorDiv")["data"].update(a=-1),
    "a root that is no map": lambda g: g.update(root_index=1),
    "no root": lambda g: g.pop("root_index"),
    "further fields": lambda g: g.update(evil=1),
    "fields beside the data": lambda g: g["nodes"][1].update(evil=1),
    "the schedule's variables": lambda g: a_node(g, "ffi.String").update(data="v4"),
    "an odd name": lambda g: a_node(g, "ffi.String").update(data="x; y"),
    "an axis twice": lambda g: a_node(g, "ffi.Array").update(data=[3, 3]),
    "axes that are none of the map's": lambda g: a_node(g, "ffi.Array").update(data=[3]),
    "too many nodes": lambda g: g["nodes"].extend([{"type": "None"}] * 3000),
    "too deep a sum": lambda g: g["nodes"].extend(sums(len(g["nodes"]), shares=False)),
    "a sum of shared sums": lambda g: g["nodes"].extend(sums(len(g["nodes"]), shares=True)),
    "an odd version": lambda g: g.update(metadata={"tvm_version": "x" * 100}),
}


def sums(first: int, *, shares: bool) -> list[Plain]:
    """Nodes that each add a variable, or the node before, to the node before: of 100 or of 2^100 terms."""
    variable = 3
    nodes = [{"type": "prim.Add", "data": {"span": 0, "ty": 1, "a": variable, "b": variable}}]
    for last in range(first, first + 99):
        fields = {"span": 0, "ty": 1, "a": last, "b": last if shares else variable}
        nodes.append({"type": "prim.Add", "data": fields})
    return nodes


@pytest.mark.parametrize("edit", INDEX_MAP_EDITS.values(), ids=list(INDEX_MAP_EDITS))
def test_index_maps_are_integer_arithmetic_of_their_own_axes(edit: Callable[[Plain], object]) -> None:
    trace, position, graph = index_map_instruction()
    before = json.dumps(graph)
    edit(graph)
    assert json.dumps(graph) != before
    trace[0][position][1][1] = json.dumps(graph)
    assert refused(trace).startswith(f"instruction {position} (TransformLayout): ")


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text.replace("ir.Var", "ir.V\\u0061r"),
        lambda text: text.replace("index_0", "é"),
        lambda text: text + " " * (1 << 16),
        lambda text: text.replace('"root_index"', '"root_index": 0, "root_index"'),
        lambda text: text.replace(": 0", ": NaN", 1),
        lambda text: '"' + text + '"',
        lambda text: "b0",
        lambda text: 3,
    ],
)
def test_the_text_of_an_index_map_is_read_in_one_way_only(disguise: Callable[[str], Plain]) -> None:
    trace, position, graph = index_map_instruction()
    trace[0][position][1][1] = disguise(json.dumps(graph))
    assert refused(trace).startswith(f"instruction {position} (TransformLayout): ")


def test_a_layout_is_proved_to_lose_nothing_and_is_not_padded() -> None:
    for place, value in ((1, 1), (2, "{}"), (3, True)):
        trace, position, _ = index_map_instruction()
        trace[0][position][2][place] = value
        assert refused(trace).startswith(f"instruction {position} (TransformLayout): ")


def mutations(rng: random.Random, text: str) -> list[str]:
    """One text of each kind of damage."""
    at = rng.randrange(len(text))
    flipped = chr(ord(text[at]) ^ (1 << rng.randrange(7)))
    instructions, decisions = json.loads(text)
    other, another = rng.randrange(len(instructions)), rng.randrange(len(instructions))
    part, elsewhere = rng.randrange(4), rng.randrange(4)
    swapped = copy.deepcopy(instructions)
    swapped[other][part], swapped[another][elsewhere] = swapped[another][elsewhere], swapped[other][part]
    odd = rng.choice(
        [None, True, -1, 0.5, 10**25, "", "\ud800", "None", [], [[]], {}, {"a": []}, '"x"', "b0"]
    )
    replaced = copy.deepcopy(instructions)
    if replaced[other][part] and part:
        replaced[other][part][rng.randrange(len(replaced[other][part]))] = odd
    else:
        replaced[other][part] = odd
    moved = [[rng.choice([index + 1, -index, 10**9, odd]), value] for index, value in decisions]
    changed = [[index, rng.choice([odd, [odd], value])] for index, value in decisions]
    numbers = [place for place, char in enumerate(text) if char.isdigit()]
    number = rng.choice(numbers)
    return [
        text[:at],
        text[:at] + text[at + 1 :],
        text[:at] + flipped + text[at + 1 :],
        text[:at] + chr(rng.randrange(0x3000)) + text[at:],
        text[:number] + rng.choice(["NaN", "-Infinity", "1e999", "1e5", "9" * 40]) + text[number + 1 :],
        json.dumps([swapped, decisions]),
        json.dumps([replaced, decisions]),
        json.dumps([instructions, moved]),
        json.dumps([instructions, changed]),
        json.dumps([instructions[::-1], decisions]),
    ]


@pytest.mark.slow
def test_damaged_traces_pass_or_are_refused_and_nothing_else() -> None:
    rng = random.Random(7)
    damaged = [text for real in REAL for _ in range(20) for text in mutations(rng, real["trace"])]
    num_refused = 0
    for text in damaged:
        try:
            check_trace(text)
        except UntrustedTraceError:
            num_refused += 1
    assert len(damaged) >= 2000
    assert len(damaged) * 0.7 < num_refused < len(damaged)


def test_a_stack_that_is_nearly_full_is_no_other_error() -> None:
    def at_depth(levels: int) -> None:
        if levels:
            at_depth(levels - 1)
        else:
            check_trace("[" * 100)

    with pytest.raises(UntrustedTraceError):
        at_depth(sys.getrecursionlimit() // 2)


@pytest.mark.tvm
@pytest.mark.slow
def test_intrinsics_are_those_that_there_are() -> None:
    from tunewright.core.tvm_adapter.x86_intrinsics import DOT_INTRINSICS

    assert INTRINSICS == tuple(intrinsic.name for intrinsic in DOT_INTRINSICS)
