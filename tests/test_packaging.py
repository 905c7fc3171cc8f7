"""The wheel holds everything that the source tree does, behind the one import name."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import tunewright

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tunewright", "scheduler", "search", "cost_model", "workers", "tuning_logs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a clean copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [*(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")]
    subprocess.run([*command, "--no-index", "--wheel-dir", "dist", "."], cwd=source, check=True, timeout=120)
    (built,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.slow
def test_wheel_holds_every_source_file_under_one_import_name(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT) for path in (ROOT / "tunewright").rglob("*.py")}
    for part in PARTS[1:]:
        sources |= {"tunewright" / path.relative_to(ROOT) for path in (ROOT / part).rglob("*.py")}
    packed = {Path(name) for name in wheel.namelist() if name.endswith(".py")}
    assert packed == sources


@pytest.mark.slow
def test_wheel_holds_the_files_that_are_not_python(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"tunewright/py.typed", "tunewright/tuning_logs/migrations/script.py.mako"} <= names


@pytest.mark.slow
def test_wheel_names_its_version_licence_and_exact_compiler_pair(wheel: zipfile.ZipFile) -> None:
    folder = f"tunewright-{tunewright.__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Version"] == tunewright.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist") or []
    assert {"apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1"} <= set(required)
    assert "tunewright = tunewright.cli.app:main" in wheel.read(f"{folder}/entry_points.txt").decode()


def test_lock_names_the_same_compiler_pair_and_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "apache-tvm==0.27.0.post1 \\\n    --hash=sha256:" in lock
    assert "apache-tvm-ffi==0.1.14.post1 \\\n    --hash=sha256:" in lock
    assert "://" not in lock
    assert "--index" not in lock
