"""Is there room on the disk, asked before the work that would fill it; and what gives it back."""

import shutil
from pathlib import Path

from pipeline.errors import PipeError

_ELSEWHERE = (
    "Make room (old runs: ls runs), or run pipe in a folder on a larger disk: "
    "a run lies in runs/ of the folder where pipe is started."
)


def require_space(folder: Path, bytes: int, what: str, cure: str = _ELSEWHERE) -> None:
    """Raises PipeError where `folder`, or what it will be made in, has fewer bytes free.

    `what` begins the sentence, as "Training": it needs so many GB, so many are free. Free is what
    this user may take (statvfs f_bavail); a quota that the file system does not tell is not known.
    """
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < bytes:
        raise PipeError(
            f"{what} needs {_gigabytes(bytes)} GB in {folder}, {_gigabytes(free)} GB are free.",
            cure,
        )


def bytes_freed(path: Path) -> int:
    """By removing a file, or a folder with all in it; links are not followed."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if not p.is_symlink()]
    found = [p.lstat() for p in files if p.is_file()]
    return sum(stat.st_size for stat in found if stat.st_nlink == 1)


def _gigabytes(bytes: int) -> str:
    """GB with one decimal, with three below 1 GB: 0.0 would tell nothing."""
    return f"{bytes / 1e9:,.1f}" if bytes >= 1e9 else f"{bytes / 1e9:.3f}"
