"""The static page: what stands in it, and that nothing of the log can do more than stand in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.plots.tuned_log import (
    CONV,
    MACHINE,
    MATMUL,
    START,
    add_session,
    failure,
    make_task,
    success,
)
from tunewright.core.log_url import file_url
from tunewright.core.types import FailureKind, MachinePeak
from tunewright.plots import log_report, session_report
from tunewright.tuning_logs import TuningLog

MADE = "made on a Friday"
HOSTILE = "</title><script>alert(1)</script><img src=x onerror='alert(2)'>\"$\\alpha"


@dataclass
class Page(HTMLParser):
    """What a browser would see: rows of tables by heading, captions, every element and its attributes."""

    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._heading = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)
        if tag in ("h1", "h2"):
            self._heading = ""
        if tag == "tr":
            self.rows.setdefault(self._heading, []).append([])
        if tag in ("td", "th"):
            self.rows[self._heading][-1].append("")
        if tag == "figcaption":
            self.captions.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} ends what it did not begin"

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"h1", "h2"} & set(self._open):
            self._heading += data
        if {"td", "th"} & set(self._open):
            self.rows[self._heading][-1][-1] += data
        if "figcaption" in self._open:
            self.captions[-1] += data

    @classmethod
    def read(cls, html: str) -> "Page":
        page = cls()
        page.feed(html)
        page.close()
        assert page._open == []
        return page

    def num_pictures(self) -> int:
        return sum(tag == "svg" for tag, _ in self.elements)


def check_is_harmless(page: Page) -> None:
    """No scripts, no handlers, no address but of this page, no id twice."""
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for _, attrs in page.elements:
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("href", "xlink:href", "src"):
                assert str(value).startswith("#")
                assert str(value)[1:] in ids
            for part in str(value).split("url(")[1:]:
                assert part.startswith("#")
                assert part[1:].split(")")[0] in ids


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(file_url(tmp_path / "tuning.db")) as tuning_log:
        yield tuning_log


@pytest.fixture
def tuned(log: TuningLog) -> TuningLog:
    results = [
        *((CONV, success(secs)) for secs in (0.5, 0.25, 0.125)),
        *((MATMUL, success(secs)) for secs in (0.0625, 0.04, 0.03, 0.05)),
        (CONV, failure(FailureKind.BUILD, "first")),
        (CONV, failure(FailureKind.BUILD, "last")),
    ]
    add_session(log, "s1", results, scores=[0.1 * number for number in range(9)])
    log.add_peak(MachinePeak(MACHINE, CONV.target, 1e9, ((1024, 1e9),), START))
    return log


def report(log: TuningLog, number: int = -1) -> Page:
    page = Page.read(session_report(log, log.sessions()[number], made=MADE))
    check_is_harmless(page)
    return page


def test_a_session_has_all_pictures_its_result_tasks_and_failures(tuned: TuningLog) -> None:
    page = report(tuned)
    assert page.num_pictures() == len(page.captions) == 10
    # 3 x 0.5 + 0.0625 s, and 3 x 0.125 + 0.03 s.
    assert "1,562 ms with default schedules, 405 ms with the best records: 3.86 times as fast" in page.text
    assert "100.0 % of the predicted time of its 2 tasks has a verified record." in page.text
    assert page.rows["Tasks"][1:] == [
        [CONV.key[:8], CONV.workload.name, "3", "5", "2", "500 ms", "125 ms", "4×", "0.0"],
        [MATMUL.key[:8], MATMUL.workload.name, "1", "4", "0", "62.5 ms", "30.0 ms", "2.08×", "0.0"],
    ]
    assert page.rows["Failed and pruned trials"] == [
        ["kind", "trials", "share", "last message"],
        ["build", "2", "22.2 %", "last"],
    ]
    for words in ("net.onnx", "random, seed 7", MACHINE.fingerprint, MADE, tuned.place, "session s1"):
        assert words in page.text


def test_what_cannot_be_drawn_is_said_in_its_place(log: TuningLog) -> None:
    add_session(log, "s1", [(CONV, failure())])
    page = report(log)
    assert page.num_pictures() == 1  # what came of the trials
    assert len(page.captions) == 10
    assert any("run `tunewright machine peak`" in text or "machine peak" in text for text in page.captions)
    assert sum("Nothing to draw: no task has a verified time" in text for text in page.captions) >= 3
    assert "No task has a verified time yet. 0.0 % of" in page.text
    assert page.rows["Tasks"][1][-4:] == ["-", "-", "-", "-"]


def test_a_session_without_trials_and_one_with_a_single_one(log: TuningLog) -> None:
    add_session(log, "empty", [])
    assert report(log).num_pictures() == 0
    assert "None of 0 trials failed." in report(log).text
    add_session(log, "single", [(CONV, success(0.5))], weights={CONV.key: 1}, tasks=[CONV])
    page = report(log)
    assert "500 ms with default schedules, 500 ms with the best records: 1 times as fast" in page.text
    assert page.num_pictures() >= 6


def test_all_sessions_the_newest_first_with_coverage_and_failures(tuned: TuningLog) -> None:
    add_session(tuned, "s2", [(CONV, failure(FailureKind.OOM))], model_name="big.onnx", seed=9)
    page = Page.read(log_report(tuned, made=MADE))
    check_is_harmless(page)
    assert [row[:2] for row in page.rows["Sessions"][1:]] == [["s2", "big.onnx"], ["s1", "net.onnx"]]
    assert [row[:3] for row in page.rows["Coverage"][1:]] == [
        ["net.onnx", "2", "100.0 %"],
        ["big.onnx", "2", "100.0 %"],
    ]
    assert page.rows["Failed and pruned trials"][1:] == [["build", "2", "20.0 %"], ["oom", "1", "10.0 %"]]
    assert {"net.onnx", "big.onnx"} <= page.rows.keys()
    assert page.num_pictures() == 5


def test_an_empty_log_is_a_page_too(log: TuningLog) -> None:
    page = Page.read(log_report(log, made=MADE))
    check_is_harmless(page)
    assert "The log has no session yet." in page.text
    assert page.num_pictures() == 0


def test_names_and_messages_are_text_whatever_they_say(log: TuningLog) -> None:
    task = make_task(f"{HOSTILE} 8x8 -> 8x8")
    results = [(task, success(0.5)), (task, success(0.25)), (task, failure(message=HOSTILE))]
    add_session(log, "s1", results, tasks=[task], weights={task.key: 1}, model_name=HOSTILE, strategy=HOSTILE)
    for page in (report(log), Page.read(log_report(log, made=HOSTILE))):
        check_is_harmless(page)
        assert page.text.count(HOSTILE) >= 3
    assert report(log).rows["Failed and pruned trials"][1][-1] == HOSTILE


def test_the_same_log_gives_the_same_page_which_loads_nothing(tuned: TuningLog) -> None:
    page = session_report(tuned, tuned.sessions()[0], made=MADE)
    assert page == session_report(tuned, tuned.sessions()[0], made=MADE)
    metas = [attrs for tag, attrs in Page.read(page).elements if tag == "meta"]
    assert {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    } in metas
    assert page.isascii() or page.encode("utf-8")
