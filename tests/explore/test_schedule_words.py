"""Schedules in words, against what real traces say of themselves, and against each other."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tunewright.explore import schedule_changes, schedule_diff, schedule_facts, schedule_words

Plain = Any
REAL: list[dict[str, str]] = json.loads(
    gzip.decompress(Path(__file__, "../../core/data/real_traces.json.gz").resolve().read_bytes())
)
NAMES = [f"{number}-{real['source']}" for number, real in enumerate(REAL)]
MATMUL = next(real["trace"] for real in REAL if real["source"] == "metaschedule-matmul")
DOT = next(real["trace"] for real in REAL if real["source"] == "tunewright-dot-tiling")
CONV = next(real["trace"] for real in REAL if real["source"] == "metaschedule-conv2d")
CUDA = next(real["trace"] for real in REAL if real["source"] == "metaschedule-cuda-conv2d_bias")
SOFTMAX = next(real["trace"] for real in REAL if "T_softmax_expsum" in real["trace"])

RULED = [
    *(["GetSBlock", [], ["matmul", "main"], ["b0"]], ["GetSBlock", [], ["root", "main"], ["b1"]]),
    ["GetLoops", ["b0"], [], ["l1", "l2"]],
    *(
        ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
        ["Split", ["l1", "v3", "v4"], [1, 0], ["l5", "l6"]],
    ),
    ["Vectorize", ["l6"], [], []],
    ["SampleCategorical", [], [[0, 16, 64], [0.4, 0.3, 0.3]], ["v7"]],
    ["Annotate", ["b1", "v7"], ["meta_schedule.unroll_explicit"], []],
]


def ruled(tile: list[int], unroll: int) -> str:
    return json.dumps([RULED, [[3, tile], [6, unroll]]])


def test_the_example_of_the_docs() -> None:
    assert schedule_words(ruled([64, 16], 2)) == ["tile i 64x16", "unroll up to 64 steps", "vectorize 16"]
    assert schedule_diff(ruled([128, 8], 2), ruled([64, 16], 0)) == [
        "tile i 128x8 -> 64x16",
        "unroll up to 64 steps -> off",
        "vectorize 8 -> 16",
    ]


def test_tvm_s_matrix_product() -> None:
    assert schedule_words(MATMUL) == [
        "tile i 8x2x1x32",
        "tile j 64x4x2x1",
        "tile k 32x16",
        "tiling structure SSRSRS",
        "order i.0 j.0 i.1 j.1 k.0 i.2 j.2 k.1 i.3 j.3",
        "parallel up to 64 jobs",
        "vectorize up to 64 lanes",
        "unroll off",
    ]


def test_our_own_tiles_around_an_instruction() -> None:
    words = schedule_words(DOT)
    # 16 and 2 are the instruction's: the trace splits by them before it samples.
    assert words[:3] == ["tile i 1x33x1", "tile j 4x1x1x16", "tile k 20x1x2"]
    assert "layout of operand 1 changed" in words
    assert "keep copy of operand 0 as float32" in words
    assert "parallel i.0*j.0 (4)" in words
    assert "tensorize tunewright.x86.dot_widened_bf16bf16f32_16x2" in words
    assert "unroll k.1 i.2 j.2" in words
    assert "v2_global: vectorize 16" in words
    assert "compute v2_global at i.1" in words


def test_where_blocks_are_computed() -> None:
    words = schedule_words(SOFTMAX)
    assert "reduced in parts j.1 (10)" in words
    assert "compute T_softmax_exp inlined" in words
    assert "compute T_softmax_maxelem at the root" in words
    assert "compute T_softmax_expsum at loop 1" in words
    assert "compute T_add inlined" in schedule_words(CONV)
    assert "compute consumer of conv2d_nchw at l.0" in schedule_words(CONV)


def test_threads_of_a_gpu() -> None:
    words = schedule_words(CUDA)
    assert "threadIdx.x i.2*j.2*k.2*l.2 (16)" in words
    assert "copy of operand 0 in shared memory" in words
    assert "fetch copy of operand 0 4 at a time" in words
    assert "unroll up to 16 steps" in words


def kinds(trace_json: str) -> dict[int, list[Plain]]:
    """The instructions that sample, by their index."""
    instructions, _ = json.loads(trace_json)
    return {index: one for index, one in enumerate(instructions) if one[0].startswith("Sample")}


@pytest.mark.parametrize("real", REAL, ids=NAMES)
def test_every_tile_that_was_decided_is_told(real: dict[str, str]) -> None:
    instructions, decisions = json.loads(real["trace"])
    tiles = [fact.value for fact in schedule_facts(real["trace"]) if fact.what.startswith("tile ")]
    for index, decision in decisions:
        if instructions[index][0] == "SamplePerfectTile":
            told = "x".join(map(str, decision))
            # What an instruction takes of an axis stands behind it.
            assert any(tile == told or tile.startswith(f"{told}x") for tile in tiles), told


@pytest.mark.parametrize("real", REAL, ids=NAMES)
def test_no_trace_differs_from_itself_and_each_says_something(real: dict[str, str]) -> None:
    facts = schedule_facts(real["trace"])
    assert facts
    assert all("cannot be read" not in fact.value for fact in facts)
    assert len({(fact.block, fact.what) for fact in facts}) == len(facts)
    assert schedule_diff(real["trace"], real["trace"]) == []


def changed(index: int, instruction: list[Plain], decision: Plain, rng: random.Random) -> Plain:
    """Another decision for an instruction that samples."""
    match instruction[0]:
        case "SamplePerfectTile":
            return [2 * decision[0], *decision[1:]]
        case "SampleCategorical":
            return rng.choice([other for other in range(len(instruction[2][0])) if other != decision])
        case _:
            return rng.choice([other for other in (-2, -1, 3, 4) if other != decision])


@pytest.mark.parametrize("real", REAL, ids=NAMES)
def test_each_decision_that_changes_is_told_and_it_alone(real: dict[str, str]) -> None:
    rng = random.Random(0)
    instructions, decisions = json.loads(real["trace"])
    sampling = kinds(real["trace"])
    for place, (index, decision) in enumerate(decisions):
        other = list(decisions)
        other[place] = [index, changed(index, sampling[index], decision, rng)]
        changes = schedule_changes(real["trace"], json.dumps([instructions, other]))
        assert changes, sampling[index]
        if sampling[index][0] == "SamplePerfectTile":
            assert [change.what.startswith("tile ") for change in changes].count(True) == 1
            # An outermost factor is also a number of jobs or threads.
            rest = {change.what for change in changes if not change.what.startswith("tile ")}
            assert rest <= {"parallel", "blockIdx.x", "reduced in parts"}
        else:
            [variable] = sampling[index][3]
            assert len(changes) == sum(variable in one[1] for one in instructions)
        back = schedule_changes(json.dumps([instructions, other]), real["trace"])
        assert [(one.before, one.after) for one in back] == [(one.after, one.before) for one in changes]


def test_what_one_schedule_does_not_do_is_none() -> None:
    changes = {(change.what, change.before, change.after) for change in schedule_changes(MATMUL, DOT)}
    assert ("tiling structure", "SSRSRS", "none") in changes
    assert ("tensorize", "none", "tunewright.x86.dot_widened_bf16bf16f32_16x2") in changes
    assert ("tile i", "8x2x1x32", "1x33x1") in changes


def test_postprocessing_is_left_out() -> None:
    instructions, decisions = json.loads(MATMUL)
    end = [one[0] for one in instructions].index("EnterPostproc")
    assert schedule_diff(MATMUL, json.dumps([instructions[: end + 1], decisions])) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "[[], 3]", '[["x"], []]', '[[["GetLoops", ["b9"], [], []]], []]']
)
def test_a_text_that_is_no_trace_says_so_and_differs_from_others(text: str) -> None:
    (fact,) = schedule_facts(text)
    assert fact.what == "schedule"
    assert "cannot be read" in fact.value
    assert schedule_diff(text, text) == []
    assert len(schedule_diff(text, MATMUL)) > 1
    assert len(schedule_diff(text, text + " ")) == 1
