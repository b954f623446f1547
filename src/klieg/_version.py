"""The version of the package, and the commit it was taken from."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"


def commit() -> str:
    """The commit that is checked out where this code lies; "unknown" outside a checkout, as in an installed wheel."""
    top = Path(__file__).resolve().parents[2]
    git = top / ".git"
    try:
        if git.is_file():  # a worktree: the file says where the rest is
            git = top / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        return _resolve(git, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except OSError:
        return "unknown"


def _resolve(git: Path, ref: str) -> str:
    common = git / "commondir"
    store = git / common.read_text().strip() if common.exists() else git
    if (store / ref).exists():
        return (store / ref).read_text().strip()
    for line in (store / "packed-refs").read_text().splitlines():
        if line.endswith(f" {ref}"):
            return line.split()[0]
    return "unknown"
