"""What the heads of a suite are compared with: what each entry names, or one baseline for all of them."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunewright.core.errors import ConfigError
from tunewright.core.log_url import log_url
from tunewright.gate.revisions import Checkout, checked_out, commit_of, run_build
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite
from tunewright.scheduler.manifest import read_manifest
from tunewright.scheduler.schedule_lock import read_lock
from tunewright.tuning_logs import TuningLog

LOCK_SUFFIX = ".lock"
_SAVED = Path(".tunewright") / "baselines"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Entry = ModelEntry | KernelsEntry
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Base:
    """Where the base of an entry is, a path or URL, and what people are told of it."""

    place: str
    shown: str


# None: the baseline does not have the entry.
BaseOf = Callable[[Entry], Base | None]


def named_base(entry: Entry) -> Base:
    """The base that the entry names.

    Raises:
        ConfigError: it names none.
    """
    if entry.base is None:
        raise ConfigError(
            f"{entry.name!r} has no base: name one, or pass --baseline (pytest: --gate-baseline)"
        )
    return Base(str(entry.base), str(entry.base))


@contextmanager
def opened_baseline(suite: Suite, baseline: str | None, *, tell: Tell = lambda _: None) -> Iterator[BaseOf]:
    """Where the suite's bases are, as long as this is open.

    Args:
        baseline: a folder, a lock file or a log, the name of a saved baseline, or a git revision, in this
            order; of a revision, what the suite's `build` makes of it. None: what each entry names.
        tell: is told what takes its time.

    Raises:
        ConfigError: it is none of these.
        EnvironmentProblem: the revision cannot be built.
    """
    if baseline is None:
        yield named_base
    elif Path(baseline).is_dir():
        yield lambda entry: _in_folder(Path(baseline), entry)
    elif Path(baseline).is_file() or "://" in baseline:
        yield lambda entry: _the_file(baseline, entry)
    elif (folder := _saved_folder(suite, baseline)).is_dir():
        tell(f"base is the saved baseline {baseline}")
        yield lambda entry: _saved(folder, entry)
    elif commit_of(suite.folder, baseline) is None:
        names = saved_names(suite)
        known = f"those saved are {', '.join(names)}" if names else "none is saved"
        raise ConfigError(
            f"{baseline} is no folder, no file, no saved baseline ({known}), and no revision that git knows"
        )
    else:
        with checked_out(suite.folder, baseline) as checkout:
            tell(f"base is {baseline}, commit {checkout.commit[:10]}")
            if suite.build is not None:
                tell(f"building base: {suite.build}")
                run_build(suite.build, checkout.folder, suite_folder=suite.folder, side=f"base ({baseline})")
            yield lambda entry: _of_revision(checkout, suite, entry)


def build_heads(suite: Suite, *, tell: Tell = lambda _: None) -> None:
    """Run the suite's `build`, if it has one, in its own folder.

    Raises:
        EnvironmentProblem: it fails.
    """
    if suite.build is not None:
        tell(f"building head: {suite.build}")
        run_build(suite.build, suite.folder, suite_folder=suite.folder, side="head")


def save_baseline(suite: Suite, name: str) -> Path:
    """Copy the suite's heads; an earlier baseline of the name is replaced.

    Raises:
        ConfigError: the name is no name, or means something else; a head cannot be read.
        StoreError: a log cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name: write letters, digits, '.', '_' and '-'")
    if Path(name).exists() or commit_of(suite.folder, name) is not None:
        raise ConfigError(f"{name} is a file or a revision of git already; give the baseline another name")
    entries: list[Entry] = [*suite.models, *suite.kernels]
    names = [_file_name(entry) for entry in entries]
    if doubled := {one for one in names if names.count(one) > 1}:
        raise ConfigError(f"two heads of the suite are called {min(doubled)!r}: give them different names")
    if not entries:
        raise ConfigError("the suite has no entry: there is nothing to save")
    folder = _saved_folder(suite, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parents[1] / ".gitignore").write_text("*\n", encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        for entry, file in zip(entries, names, strict=True):
            _copy(entry, new / file)
        if folder.exists():
            folder.replace(Path(scratch, "old"))
        new.replace(folder)
    return folder


def saved_names(suite: Suite) -> list[str]:
    """Of the baselines that were saved for a suite."""
    parent = _saved_folder(suite, "x").parent
    return sorted(path.name for path in parent.glob("*") if _NAME.fullmatch(path.name))


def _saved_folder(suite: Suite, name: str) -> Path:
    # What is no name is nowhere, and not elsewhere.
    return suite.folder / _SAVED / (name if _NAME.fullmatch(name) else "-")


def _file_name(entry: Entry) -> str:
    """What the copy of a head is called in a baseline's folder."""
    if isinstance(entry, KernelsEntry) and "://" in entry.head:
        return f"{entry.name}.db"
    return Path(entry.head).name


def _copy(entry: Entry, target: Path) -> None:
    if isinstance(entry, ModelEntry):
        read_manifest(entry.head)
        shutil.copytree(entry.head, target)
    elif entry.head.endswith(LOCK_SUFFIX):
        read_lock(Path(entry.head))
        shutil.copyfile(entry.head, target)
    else:
        with TuningLog.open(log_url(entry.head), read_only=True) as log:
            log.back_up(target)


def _in_folder(folder: Path, entry: Entry) -> Base:
    """A model's folder may be given itself."""
    place = folder / _file_name(entry)
    if isinstance(entry, ModelEntry) and not place.is_dir():
        place = folder
    return Base(str(place), str(place))


def _the_file(baseline: str, entry: Entry) -> Base:
    if isinstance(entry, ModelEntry):
        raise ConfigError(f"{baseline} is no folder: the base of {entry.name!r} must be a compiled model")
    return Base(baseline, baseline)


def _saved(folder: Path, entry: Entry) -> Base | None:
    place = folder / _file_name(entry)
    return Base(str(place), f"{place.name} saved as {folder.name}") if place.exists() else None


def _of_revision(checkout: Checkout, suite: Suite, entry: Entry) -> Base | None:
    if isinstance(entry, KernelsEntry) and "://" in entry.head:
        raise ConfigError(f"{entry.name!r} is a log, of which git knows no revisions: save a baseline of it")
    place = checkout.path_of(Path(entry.head), suite.folder)
    if place.exists():
        return Base(str(place), f"{place.name} of {checkout.revision}")
    if isinstance(entry, ModelEntry) and suite.build is None:
        raise ConfigError(
            f"{checkout.revision} holds no {place.name}: compiled models are no part of a repository; "
            "give the suite a `build`, the command that makes them, which is run for both sides"
        )
    return None
