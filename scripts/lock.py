"""Write requirements.lock: every package of the project and its development tools, pinned, with hashes.

uv resolves once for all supported Python versions and machines; it is not a dependency, so it is
installed into a throw-away environment.

nvidia-nccl-cu12 is left out: 470 MB that XGBoost opens only to train on several GPUs, which Tunewright
does not do; without it a fresh set-up takes about half the time.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = (
    "# Written by 'make lock' from pyproject.toml: every package of 'make test' and 'make demo', with hashes."
)


def main() -> int:
    lock = ROOT / "requirements.lock"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        compiled = subprocess.run(
            [
                *(f"{folder}/bin/uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--quiet"),
                *("--universal", "--python-version", "3.11", "--generate-hashes", *sys.argv[1:]),
                *("--no-emit-package", "nvidia-nccl-cu12", "--no-header", "--no-annotate"),
                *("--no-emit-index-url", "--no-emit-find-links"),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    lock.write_text(f"{HEADER}\n{compiled.stdout}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
