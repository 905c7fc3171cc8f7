"""Refuse files longer than 600 lines and functions longer than 80 (exit code 1 names each)."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    *("tunewright/core", "tunewright/cli", "tunewright/explore", "tunewright/gate", "tunewright/plots"),
    *("scheduler", "search", "cost_model", "workers", "tuning_logs", "scripts", "benchmarks"),
)


def oversized(path: Path) -> Iterator[str]:
    """One line for the file and for each of its functions that is too long."""
    source = path.read_text()
    name = path.relative_to(ROOT)
    num_lines = len(source.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield f"{name}: {num_lines} lines, at most {MAX_FILE_LINES}; split it by concept"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def main() -> int:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    problems = [problem for path in paths for problem in oversized(path)]
    print("\n".join(problems) or f"sizes: {len(paths)} files within the limits")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
