"""A schedule trace as lines that people can read."""

import json

from tunewright.core.keys import canonical_json


def trace_lines(trace_json: str) -> list[str]:
    """One line per instruction, `outputs = Kind(inputs, attributes)`, and what was decided behind a `#`.

    A text of another structure comes back as it is, as one line.
    """
    try:
        instructions, decisions = json.loads(trace_json)
        decided = {int(index): decision for index, decision in decisions}
        return [
            _line(*instruction) + (f"  # {canonical_json(decided[index])}" if index in decided else "")
            for index, instruction in enumerate(instructions)
        ]
    except (ValueError, TypeError):
        return [trace_json]


def _line(kind: str, inputs: list[object], attributes: list[object], outputs: list[str]) -> str:
    # Among the inputs a bare text names a variable; a string has its quotation marks already.
    arguments = [value if isinstance(value, str) else canonical_json(value) for value in inputs]
    arguments += [canonical_json(value) for value in attributes]
    call = f"{kind}({', '.join(arguments)})"
    return f"{', '.join(outputs)} = {call}" if outputs else call
