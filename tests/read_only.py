"""Files that cannot be written to, as on a read-only mount; also for root, who may write to all others."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

MAY_WRITE_ALL = 1 << 1  # CAP_DAC_OVERRIDE, of capabilities(7)
VERSION_3 = 0x20080522


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within the block nothing in the folder can be written, made or removed."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        with _without(MAY_WRITE_ALL):
            yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextlib.contextmanager
def _without(capability: int) -> Iterator[None]:
    """Within the block this thread does not use a capability that it has."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    _checked(libc.capget(header, held))
    less = (ctypes.c_uint32 * 6)(*held)
    less[0] &= ~capability
    _checked(libc.capset(header, less))
    try:
        yield
    finally:
        _checked(libc.capset(header, held))


def _checked(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
