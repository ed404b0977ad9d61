"""The run directory: where a stage's files are, whether they are up to date, and the manifest that says how they were made.

A stage is done when its manifest is there, its fingerprint is today's and its outputs are what the manifest says.
Does not know what a stage does.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from seqdistill.clock import LOCK, Clock, holder
from seqdistill.errors import Busy, SeqdistillError, UsageError
from seqdistill.files import replace_path
from seqdistill.recipe.reading import relative_path
from seqdistill.records import content_files, file_sha256, fingerprint, read_json, seal, write_json
from seqdistill.version import __version__, source_sha256

STAGES = ("generate", "filter", "train", "eval")
PACKAGES = ("torch", "transformers", "trl", "datasets", "vllm", "openai", "accelerate", "sacrebleu", "tokenizers")
RESUMED = ("generate", "train")  # they continue an earlier attempt, and their machines are paid by the hour
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of a file system, as Lustre and NFS are often mounted


@dataclass(frozen=True)
class Run:
    """A run directory. Nothing is created until a stage writes."""

    path: Path

    def __post_init__(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: a file, not a run directory", "name a directory; it is created when missing")

    @property
    def shell(self) -> str:
        """The directory as a word of a shell command."""
        return shlex.quote(str(self.path))

    def file(self, stage: str, name: str) -> Path:
        """The path of one of a stage's files."""
        return self.path / stage / name

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """A stage's manifest; None when the stage is not done."""
        path = self.file(stage, "manifest.json")
        try:
            loaded = read_json(path, hint := "remove the file; the stage's work is then checked again")
        except FileNotFoundError:
            return None
        if not {"status", "seconds", "fingerprint", "outputs"} <= loaded.keys():
            raise UsageError(f"{path}: not a manifest", hint)
        return loaded

    def mark_stale(self, stage: str) -> None:
        """Has a stage's next command do its work again. What it left stays usable; a damaged manifest goes."""
        path = self.file(stage, "manifest.json")
        try:
            manifest = self.manifest(stage)
        except UsageError:
            path.unlink()
            return
        if manifest is not None:
            self._annotate(stage, manifest, fingerprint="")

    def mark_smoke(self, stage: str, count: int) -> None:
        """Notes in a stage's manifest that it is of a smoke run of `count` prompts."""
        if manifest := self.manifest(stage):
            self._annotate(stage, manifest, smoke=count)

    def _annotate(self, stage: str, manifest: dict[str, Any], **keys: Any) -> None:
        """Writes a finished stage's manifest with other values of these keys."""
        manifest |= keys
        write_json(self.file(stage, "manifest.json"), {**manifest, "seal": seal(manifest)})

    def need(self, stage: str, name: str) -> Path:
        """The path of a file that an earlier stage must have written. Raises UsageError naming the command to run."""
        path = self.file(stage, name)
        if self.manifest(stage) is None or not path.exists():
            mistyped = "" if self.path.is_dir() else f"there is no run {self.path}: check the name, or "
            raise UsageError(f"{path}: not there yet", f"{mistyped}run `seqdistill {stage} {self.shell}` first")
        return path

    def hash_of(self, path: Path) -> str:
        """The SHA-256 of a file or folder; taken from the manifest of the stage that wrote it while it is unchanged."""
        for stage in STAGES:
            if path.is_relative_to(self.path / stage):
                for output in (self.manifest(stage) or {}).get("outputs", ()):
                    if self.path / output["path"] == path and _stamp(path) == output["stamp"]:
                        return str(output["sha256"])
        return file_sha256(path)

    def locked(self, stage: str) -> contextlib.AbstractContextManager[None]:
        """Holds a stage for this process; a second process on it gets a Busy at once."""
        return self._held(self.file(stage, LOCK), f"is at work on the {stage} stage", self.clock(stage))

    def clock(self, stage: str) -> Clock | None:
        """How long a stage that resumes was at work in all; None for one that always begins anew."""
        if stage not in RESUMED:
            return None
        finished: dict[str, Any] = {}
        if stage == "generate":  # it continues what is finished, a training never does
            with contextlib.suppress(UsageError):  # a damaged manifest is reported by who needs it
                finished = self.manifest(stage) or {}
        return Clock(self.file(stage, ""), finished.get("seconds_in_all", 0.0))

    def at_work(self, stage: str) -> str | None:
        """The process that holds a stage now, in words; None when the stage is free."""
        try:
            with self.file(stage, LOCK).open() as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return handle.readline().strip() or "an unknown process"
        except OSError as error:
            if error.errno not in (errno.ENOENT, *NO_LOCKS):
                raise
        return None

    def spending(self) -> contextlib.AbstractContextManager[None]:
        """Holds the run's budget for this process; a second one that would pay gets a Busy at once."""
        return self._held(self.path / ".spending.lock", "is spending in this run")

    @contextlib.contextmanager
    def _held(self, path: Path, activity: str, clock: Clock | None = None) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as handle:
            try:
                locked = _locks(handle)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                raise SeqdistillError(
                    f"{path}: this file system cannot lock files ({error.strerror}), and two processes could pay twice",
                    "put the run on a local disk, or mount the file system with locks (Lustre: -o flock; NFS: a lock daemon)",
                ) from None
            if not locked:
                handle.seek(0)
                raise Busy(
                    f"{self.path}: another process ({handle.readline().strip() or 'unknown'}) {activity}",
                    "wait for it, or stop it; two processes would pay twice",
                )
            if clock is None:
                handle.truncate(0)
                handle.write(holder())
                handle.flush()
                yield
                return
            clock.start()
            try:
                yield
            finally:
                clock.stop()


def _locks(handle: IO[str]) -> bool:
    """Whether this process now holds the file. Tried again for a moment: `at_work` looks at it with a lock of its own."""
    for seconds in (0.02, 0.05, 0.0):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(seconds)
    return False


@dataclass
class StageRecord:
    """One stage's work as it is being done: its fingerprint now, its manifest at the end."""

    run: Run
    stage: str
    settings: Mapping[str, Any]  # "table.key" -> value, those that can change the output's bytes
    inputs: Mapping[str, Path]  # name -> file or folder
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.input_hashes = {name: self.run.hash_of(path) for name, path in self.inputs.items()}
        self.fingerprint = fingerprint({"settings": dict(self.settings), "inputs": self.input_hashes})

    def up_to_date(self) -> bool:
        """Whether the outputs on disk are those of today's settings and inputs, complete and unchanged."""
        manifest = self.run.manifest(self.stage)
        return (
            manifest is not None
            and manifest["status"] == "complete"
            and manifest["fingerprint"] == self.fingerprint
            and all(_is_unchanged(self.run.path / output["path"], output) for output in manifest["outputs"])
        )

    def differences(self) -> list[str]:
        """The settings and inputs that differ from the finished stage on disk, as "table.key: old -> new"."""
        manifest = self.run.manifest(self.stage)
        return [] if manifest is None else self.differences_from(manifest)

    def differences_from(self, recorded: Mapping[str, Any]) -> list[str]:
        """The same for what is `recorded` of other work, as in a manifest or by `described`."""
        old, new = _by_dotted_name(recorded.get("settings", {})), _by_dotted_name(self.settings)
        hashes = {name: entry["sha256"] for name, entry in recorded.get("inputs", {}).items()}
        return [
            *(f"{name}: {was} -> {now}" for name in _changed(old, new) for was, now in _unlike(old.get(name), new.get(name))),
            *(f"{name}: the content changed" for name in _changed(hashes, self.input_hashes)),
        ]

    def described(self) -> dict[str, Any]:
        """Settings and inputs, as a manifest has them."""
        return {
            "settings": dict(self.settings),
            "inputs": {
                name: {"path": relative_path(path, self.run.path), "sha256": self.input_hashes[name]}
                for name, path in self.inputs.items()
            },
        }

    def remove_work(self) -> None:
        """Removes .work where it is left of this very work, whose process was killed behind the manifest."""
        work = self.run.file(self.stage, ".work")
        owner = work / "fingerprint"
        if not owner.is_file() or owner.read_text(encoding="utf-8") == self.fingerprint:
            shutil.rmtree(work, ignore_errors=True)

    def begin(self) -> None:
        """Removes the old manifest: from here on the stage is not done.

        To be called when all that replaces an earlier result is there: whatever fails before leaves that result usable.
        """
        with contextlib.suppress(FileNotFoundError):
            self.run.file(self.stage, "manifest.json").unlink()

    def begin_anew(self) -> None:
        """Has the manifest's `seconds_in_all` count from this attempt on: nothing of earlier ones is continued."""
        if clock := self.run.clock(self.stage):
            clock.reset()

    @contextlib.contextmanager
    def new_files(self, *optional: str) -> Iterator[Path]:
        """A folder to write the stage's files to. They replace those of an earlier result, whole until then, at the end.

        Of `optional` files, the earlier one goes where no new one was written. The manifest is still to be written.
        """
        new = self.run.file(self.stage, ".new")
        shutil.rmtree(new, ignore_errors=True)  # of an attempt that was killed
        new.mkdir(parents=True)
        try:
            yield new
            self.begin()
            for name in sorted({*optional, *(path.name for path in new.iterdir())}):
                replace_path(self.run.file(self.stage, name), new / name)
        finally:
            shutil.rmtree(new)

    def finish(
        self, outputs: Mapping[str, int | None], *, status: str = "complete", config: Mapping[str, Any], **facts: Any
    ) -> dict[str, Any]:
        """Writes the manifest, last of all, and returns it. `outputs` maps file names to their row counts.

        `config` is the resolved configuration; `facts` are further entries (counts, usage, teacher). No secret may be in them.
        """
        written = []
        for name, rows in outputs.items():
            path = self.run.file(self.stage, name)
            entry: dict[str, Any] = {"path": str(path.relative_to(self.run.path)), "sha256": file_sha256(path), "rows": rows}
            if path.is_dir():
                entry["files"] = {str(part.relative_to(path)): file_sha256(part) for part in content_files(path)}
            written.append({**entry, "stamp": _stamp(path)})
        now, clock = time.time(), self.run.clock(self.stage)
        in_all = clock.seconds() if clock else None
        manifest = {
            "stage": self.stage,
            "status": status,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "finished": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "seconds": round(now - self.started, 3),
            **({} if in_all is None else {"seconds_in_all": round(in_all, 3)}),
            "argv": sys.argv[1:],
            "fingerprint": self.fingerprint,
            "config": dict(config),
            **self.described(),
            "outputs": written,
            **facts,
            "seqdistill": __version__,
            "source": source_sha256(),
            "git": _git_revision(),
            "packages": _package_versions(),
            "host": {
                "system": platform.platform(),
                "machine": platform.machine(),
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
            },
        }
        journal = self.run.file(self.stage, "journal.jsonl")
        if journal.is_file():
            size = journal.stat().st_size
            manifest["journal"] = {"bytes": size, "sha256": start_sha256(journal, size)}
        manifest["seal"] = seal(manifest)
        write_json(self.run.file(self.stage, "manifest.json"), manifest)
        return manifest


def start_sha256(path: Path, size: int) -> str:
    """The SHA-256 (hex) of a file's first bytes: of a journal, to which only more is added."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _unlike(old: Any, new: Any) -> Iterator[tuple[str, str]]:
    """The parts of two values that differ, each as short text."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in _changed(old, new):
            yield from ((f"{name} = {was}", now) for was, now in _unlike(old.get(name), new.get(name)))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and old:
        for was, now in zip(old, new, strict=True):
            if was != now:
                yield from _unlike(was, now)
    elif old != new:
        yield _short(old), _short(new)


def _short(value: Any) -> str:
    text = {None: "not set", True: "true", False: "false"}.get(value) if isinstance(value, (bool, type(None))) else None
    text = text or (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else text[:57] + "..."


def _by_dotted_name(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The settings with those in a table of their own, like train.args, each under its whole name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        value = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
        flat |= _by_dotted_name(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return flat


def _stamp(path: Path) -> list[int]:
    """The size of a file or of a folder's content, and the modification time (ns) of each file: a cheap sign of change."""
    parts = [part.stat() for part in content_files(path)]
    return [sum(part.st_size for part in parts), *(part.st_mtime_ns for part in parts)]


def _is_unchanged(path: Path, output: Mapping[str, Any]) -> bool:
    if not path.exists():
        return False
    return bool(_stamp(path) == output["stamp"] or file_sha256(path) == output["sha256"])


def _git_revision() -> str | None:
    """The revision of the working directory's repository, with "-dirty" when it has changes; None outside of one."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _package_versions() -> dict[str, str]:
    from importlib import metadata

    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
