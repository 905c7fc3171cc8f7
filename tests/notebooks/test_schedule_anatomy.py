import re

import pytest

from tests.notebooks.conftest import RunNotebook

STEPS = ("as written", "tiles", "vectors", "registers", "threads", "fusion")


@pytest.mark.tvm
@pytest.mark.slow
def test_every_program_is_right_and_timed_and_shown(run_notebook: RunNotebook) -> None:
    output = run_notebook(
        "schedule_anatomy",
        {
            "ROWS, DEPTH, COLUMNS = 512, 128, 512": "ROWS, DEPTH, COLUMNS = 64, 32, 64",
            "NUM_TRIALS = 64": "NUM_TRIALS = 9",
            "ROUNDS = 21": "ROUNDS = 3",
        },
    )
    programs = {*STEPS, "champion", "fusion, one thread"}
    errors = dict(re.findall(r"^(.+): largest relative error (\S+)$", output.text, flags=re.M))
    assert errors.keys() == programs
    assert all(0 <= float(error) < 1e-5 for error in errors.values())
    times = dict(re.findall(r"^(.+): (\S+) ms \(quartiles .*, n = 3\), .* GFLOP/s", output.text, flags=re.M))
    assert times.keys() == programs
    assert all(float(ms) > 0 for ms in times.values())
    # The same program shows the same time in the comparison of fused and unfused ones.
    assert (
        f"one thread: unfused {times['registers']} ms, fused {times['fusion, one thread']} ms" in output.text
    )
    assert f"threads: unfused {times['threads']} ms, fused {times['fusion']} ms" in output.text

    written, tiles, vectors, registers, threads, fusion, champion, alone = output.html
    assert "T.grid(64, 64, 32)" in written and "T.vectorized" not in written
    for before, after, page, what in (
        ("as written", "tiles", tiles, "_init"),
        ("tiles", "vectors", vectors, "T.vectorized("),
        ("vectors", "registers", registers, "T.unroll("),
        ("registers", "threads", threads, "T.parallel("),
    ):
        assert f"--- {before}\n+++ {after}" in re.sub("<[^>]+>", "", page)
        assert re.search(rf">\+[^<]*{re.escape(what)}", page)
        assert not re.search(rf">-[^<]*{re.escape(what)}", page)
    # Two loop nests are gone, and one of the two matrices between them.
    assert len(re.findall(r">-[^<]*for v\d+ in T.parallel\(64\)", fusion)) == 2
    assert len(re.findall(r">- [^<]*sblock_alloc_buffer", fusion)) == 1
    assert "T.parallel" in champion or "T.vectorized" in champion
    assert "T.parallel" in alone
    words = output.text.split("by hand -> champion")[0]
    assert "vectorize" in words and "tile" in words
    assert len(output.pictures) == 2
