"""Files and folders that appear whole or not at all: written beside their place under a hidden name, then renamed.

What a killed process left is removed by the next that writes there; what another process is writing is left alone. Does not
know what is in a file.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ENDING = r"[a-z0-9_]{8}\.(tmp|old)"  # of a temporary name, behind a dot, the name of what it is of, and a dot


def is_temporary(name: str) -> bool:
    """Whether something of this name is being written, or was when its process was killed: it is part of no result."""
    return re.fullmatch(rf"\..+\.{ENDING}", name) is not None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under `path` only when the block ends well; on an error nothing is left behind."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    with atomic_write(path) as file:
        file.write(text)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Where to write a file that appears under `path` only when the block ends well; an error leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path)
    temporary = _temporary(path)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask, as any file
    try:
        _hold(handle)
        yield temporary
        os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of `path` only when the block ends well; an error leaves nothing behind."""
    with folder_beside(path) as temporary:
        old = temporary.with_suffix(".old")
        try:
            yield temporary
            if path.exists():
                path.rename(old)
            temporary.rename(path)
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, on the same disk, for as long as the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path)
    folder = _temporary(path)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        _hold(handle)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def apply_umask(folder: Path) -> None:
    """Gives the files in a folder the mode that the umask left the folder itself: safetensors writes for the owner alone."""
    mode = folder.stat().st_mode & 0o666
    for part in folder.rglob("*"):
        if part.is_file() and not part.is_symlink():
            part.chmod(mode)


def _temporary(path: Path) -> Path:
    """A new hidden name beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _remove_left_over(path: Path) -> None:
    """Removes what processes that were killed left of this path's temporary files and folders, and nothing else."""
    made = re.compile(re.escape(f".{path.name}.") + ENDING)
    for one in path.parent.iterdir():
        if made.fullmatch(one.name) and not _is_held(one):
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)


def _hold(handle: int) -> None:
    """Marks a temporary file or folder as one that a process is at work on; the mark ends with the process."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_held(path: Path) -> bool:
    """Whether another process may be at work on a temporary file or folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return True
    finally:
        os.close(handle)
    return False


def replace_path(path: Path, new: Path) -> None:
    """Puts a file or folder in the place of another one; where the new one is not there, the other one goes."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.is_dir():
        path.rename(old)
    if new.exists():
        os.replace(new, path)
    elif path.is_file():
        path.unlink()
    shutil.rmtree(old, ignore_errors=True)
