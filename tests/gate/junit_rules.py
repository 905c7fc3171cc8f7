"""What the Jenkins xUnit plugin asks of a JUnit file (its schema junit-10.xsd), of what we write.

Other consumers ask for less. `junit_problems` is the check; a document is valid where it finds nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

_TIME = re.compile(r"(\d{1,3}(,\d{3})*|\d*)(\.\d*)?")


@dataclass(frozen=True, slots=True)
class _Rule:
    """`parts`: elements that may stand inside, None: text only."""

    needed: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    parts: frozenset[str] | None = None


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROBLEM = _Rule(allowed=_names("type message"))
_RULES = {
    "testsuites": _Rule(allowed=_names("name time tests failures errors"), parts=_names("testsuite")),
    "testsuite": _Rule(
        needed=_names("name tests failures errors"),
        allowed=_names("group time skipped timestamp hostname id package file log url"),
        parts=_names("testsuite properties testcase system-out system-err"),
    ),
    "testcase": _Rule(
        needed=_names("name"),
        allowed=_names("time classname group"),
        parts=_names("skipped error failure system-out system-err"),
    ),
    "properties": _Rule(parts=_names("property")),
    "property": _Rule(needed=_names("name value"), parts=frozenset()),
    "failure": _PROBLEM,
    "error": _PROBLEM,
    "skipped": _PROBLEM,
    "system-out": _Rule(),
    "system-err": _Rule(),
}


def junit_problems(text: str) -> list[str]:
    """What the schema would say of a document; that it is no XML is an exception of the parser."""
    root = ElementTree.fromstring(text)
    wrong_root = [] if root.tag in ("testsuites", "testsuite") else [f"the root is {root.tag}"]
    return wrong_root + list(_problems(root))


def _problems(element: ElementTree.Element) -> Iterator[str]:
    rule = _RULES.get(element.tag)
    if rule is None:
        yield f"{element.tag} is no element of JUnit"
        return
    for name in sorted(rule.needed - set(element.keys())):
        yield f"{element.tag} has no {name}"
    for name in sorted(set(element.keys()) - rule.needed - rule.allowed):
        yield f"{element.tag} has {name}"
    if element.tag != "testcase" and not _TIME.fullmatch(element.get("time", "")):
        yield f"the time of {element.tag} is {element.get('time')}"
    if rule.parts is not None and (element.text or "").strip():
        yield f"{element.tag} has text"
    for part in element:
        if part.tag not in (rule.parts or ()):
            yield f"{element.tag} holds {part.tag}"
        if rule.parts is not None and (part.tail or "").strip():
            yield f"{element.tag} has text"
        yield from _problems(part)
