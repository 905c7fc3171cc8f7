import re

import pytest

from tests.explore.html_page import Page, assert_harmless
from tests.notebooks.conftest import RunNotebook


@pytest.mark.tvm
@pytest.mark.slow
def test_questions_and_answers_fit_together(run_notebook: RunNotebook) -> None:
    output = run_notebook("query_the_log", {"SIZE = 256": "SIZE = 64", "NUM_TRIALS = 96": "NUM_TRIALS = 16"})
    assert re.search(r"SQL and data frames agree on the best of [2-9] tasks: True", output.text)
    assert re.search(r"^32 trials, \d+ of them timed to the end$", output.text, flags=re.M)
    lines = {line[1:].split()[0]: line for line in output.text.splitlines() if line.startswith("<")}
    assert lines.keys() == {"Session", "Trial", "RecordComparison", "SessionComparison", "Coverage"}
    assert "16 trials" in lines["Session"] and "random, seed 0" in lines["Session"]
    assert "<Coverage of small.onnx" in output.text and "100.0 % of the predicted time" in output.text
    assert lines["Coverage"].startswith("<Coverage of other.onnx") and ": 0 of" in lines["Coverage"]

    pages: dict[str, Page] = {}
    for html in output.html:
        if "dataframe" not in html:
            page = assert_harmless(html)
            pages[page.text.split("\n")[0][:12]] = page
    kinds = ("Tuning log", "Session", "Trial", "Records", "Sessions", "Coverage of")
    found = {kind: [page for start, page in pages.items() if start.startswith(f"{kind} ")] for kind in kinds}
    assert all(found.values()), pages.keys()
    assert "32 trials" in found["Tuning log"][0].text and "2 sessions" in found["Tuning log"][0].text
    # What the terminal says is what the page says.
    record = re.search(r"<Trial (\d+) of", lines["Trial"])
    assert record is not None
    assert f"record {record.group(1)}" in found["Records"][0].text
    assert "What changed in TIR" in found["Records"][0].text
    ends = dict(
        re.findall(r"^(random|evolutionary): 16 trials, (\S+) ms at the end$", output.text, flags=re.M)
    )
    # The later session begins with what the earlier one found.
    assert 0 < float(ends["evolutionary"]) <= float(ends["random"])
    assert f"-> {ends['random']} ms" in lines["Session"]
    assert len(output.pictures) == 4
