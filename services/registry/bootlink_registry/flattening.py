"""Exporting: a version as one whole file, wherever the administrator wants it, in a format of others.

The file appears under its name when it is whole, and never in place of another. Until the job is over it has a second
name, by which a job that begins again knows what it has done.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from bootlink_registry import images, imaging, making
from bootlink_registry.jobs.work import Work
from bootlink_registry.problems import Problem, conflict, invalid
from bootlink_registry.store import sync_folder


async def export_image(work: Work) -> dict[str, Any]:
    """The job `image.export`."""
    wanted = work.request
    target = Path(wanted["path"])
    draft = target.with_name(f"{target.name}.tmp-{work.id}")
    async with work.database.transaction() as connection:
        stack = await images.stack_of(connection, work.subject, wanted["version"])
    if await asyncio.to_thread(_same, draft, target):
        hashed = await imaging.run(imaging.Hash(path=target), making.progress(work, "looking at what is done"))
        sha256, size = hashed.sha256, hashed.size
    else:
        await asyncio.to_thread(draft.unlink, missing_ok=True)
        written = await imaging.run(
            imaging.Flatten(layers=making.refs(stack), target=draft, format=wanted["format"]),
            making.progress(work, "writing"),
        )
        sha256, size = written.sha256, written.file_size
        await asyncio.to_thread(_name, draft, target)
    result = {
        "image": work.subject,
        "version": wanted["version"],
        "path": str(target),
        "format": wanted["format"],
        "virtual_size": stack[0].virtual_size,
        "file_size": size,
        "sha256": sha256,
    }
    async with work.database.transaction() as connection:
        await work.finish(connection, result)
    await asyncio.to_thread(draft.unlink, missing_ok=True)
    return result


def require_writable(path: Path, store: Path) -> None:
    """Problem unless a file of this name can be made, outside the image store. Blocks on the file system."""
    try:
        if path.resolve().is_relative_to(store.resolve()):
            raise invalid(f"{path} lies in the image store, which holds layers alone", "name a folder elsewhere")
        if not path.parent.is_dir():
            raise invalid(f"there is no folder {path.parent} on the registry's machine", "make it, or name another")
        if path.exists() or path.is_symlink():
            raise conflict(f"{path} exists already", "choose another name, or remove it first")
    except OSError as error:  # a name longer than the file system takes, or a folder that may not be looked into
        raise invalid(f"{path} cannot be a file ({error.strerror})", "choose another name") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise invalid(f"the registry may not write into {path.parent}", "let its user write there, or name another")


def _same(draft: Path, target: Path) -> bool:
    return draft.exists() and target.exists() and draft.samefile(target)


def _name(draft: Path, target: Path) -> None:
    """Give the draft its name. Problem if there is a file of that name by now."""
    try:
        os.link(draft, target)  # unlike a rename it never replaces
    except FileExistsError as error:
        draft.unlink(missing_ok=True)
        raise conflict(f"{target} was made by somebody else meanwhile", "choose another name") from error
    except OSError:  # a file system without hard links
        if target.exists():
            draft.unlink(missing_ok=True)
            raise conflict(f"{target} was made by somebody else meanwhile", "choose another name") from None
        draft.rename(target)
    try:
        sync_folder(target.parent)
    except OSError as error:
        raise Problem(507, f"{target.parent} cannot be flushed ({error.strerror})", "check its disk") from error
