"""Sources: where items come from.

A source lists files and reads none. It sees only what lies below the configured source roots, symlinks resolved, and
gives pages in the order of the names' bytes, so that the same folder always gives the same items.
"""

# ruff: noqa: PTH110, PTH112, PTH117, PTH118 - names of files are bytes, which pathlib does not take

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import Field

from pixloom.sdk.op import Context, Item, Page, Reject, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["folder", "glob"]

_PAGE_ITEMS: Final = 10_000
"""Every page lists the folder it begins in anew: with few items to a page, a folder of a million takes for ever."""
_EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "avif")
_MOST_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class _Walk:
    """How to walk a folder.

    Attributes:
        base: The folder, symlinks resolved.
        roots: Source roots, symlinks resolved.
        recursive: Whether to go into folders.
        follow_symlinks: Whether to follow symbolic links that stay below the roots.
    """

    base: bytes
    roots: tuple[bytes, ...]
    recursive: bool
    follow_symlinks: bool

    def files(self, after: bytes) -> Iterator[bytes]:
        """Yield paths of files relative to the base, in order, that come after `after`."""
        yield from self._below(b"", after.split(b"/") if after else [], frozenset({self.base}))

    def _below(self, prefix: bytes, after: list[bytes], above: frozenset[bytes]) -> Iterator[bytes]:
        folder = os.path.join(self.base, prefix)
        begin = after[0] if after else b""
        with os.scandir(folder) as entries:
            # Folders before the cursor's are not opened again.
            found = sorted([entry for entry in entries if entry.name >= begin], key=lambda entry: entry.name)
        for entry in found:
            rest = after[1:] if after and entry.name == after[0] else []
            path = prefix + entry.name
            if entry.is_symlink() and not (self.follow_symlinks and self._stays(path)):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                continue  # a link to itself
            if is_folder:
                real = os.path.realpath(os.path.join(self.base, path))
                if self.recursive and real not in above and len(above) < _MOST_DEPTH:
                    yield from self._enter(path + b"/", rest, above | {real})
            elif is_file and not (after and entry.name == after[0]):
                yield path

    def _enter(self, prefix: bytes, after: list[bytes], above: frozenset[bytes]) -> Iterator[bytes]:
        try:
            yield from self._below(prefix, after, above)
        except (FileNotFoundError, NotADirectoryError):
            return  # removed since its name was read
        except PermissionError as error:
            raise _unreadable(os.path.join(self.base, prefix), error) from error

    def _stays(self, path: bytes) -> bool:
        return _is_below(os.path.realpath(os.path.join(self.base, path)), self.roots)


@source("source.folder", cost_hint_s=0.02, timeout_s=300, deterministic=False)
def folder(
    *,
    path: Annotated[
        str, Field(min_length=1, description="Folder; relative paths are looked for below the source roots, in order")
    ],
    recursive: Annotated[bool, Field(description="Whether to go into folders inside it")] = True,
    extensions: Annotated[
        list[str] | None,
        Field(description="Only files with these extensions, case ignored; default is those of image files"),
    ] = None,
    follow_symlinks: Annotated[
        bool, Field(description="Whether to follow symbolic links, as long as they stay below the source roots")
    ] = False,
    cursor: str | None = None,
    ctx: Context,
) -> Page:
    """Give the image files in a folder, without reading them.

    Keys are paths relative to the folder. Hidden files are given like others if their extension fits. Fails with
    NO_SUCH_FOLDER, UNREADABLE_FOLDER or OUTSIDE_ROOTS, which trying again does not help.
    """
    walk = _walk(path, ctx, recursive=recursive, follow_symlinks=follow_symlinks)
    wanted = tuple(f".{extension.lstrip('.').lower()}".encode() for extension in extensions or _EXTENSIONS)
    return _page(walk, cursor, ctx, lambda name: name.lower().endswith(wanted))


@source("source.glob", cost_hint_s=0.02, timeout_s=300, deterministic=False)
def glob(
    *,
    pattern: Annotated[
        str,
        Field(min_length=1, description="Pattern such as photos/**/*.jpg: `*`, `?`, `[…]` within a name, `**` across"),
    ],
    exclude: Annotated[list[str] | None, Field(description="Patterns of files to leave out")] = None,
    follow_symlinks: Annotated[
        bool, Field(description="Whether to follow symbolic links, as long as they stay below the source roots")
    ] = False,
    cursor: str | None = None,
    ctx: Context,
) -> Page:
    """Give the files whose path fits a pattern, without reading them.

    The part of the pattern before its first wildcard is the folder that is searched; keys are relative to it. Patterns
    to exclude are relative to that folder as well. Fails like `source.folder`.
    """
    parts = pattern.split("/")
    fixed = next((place for place, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    rest = "/".join(parts[fixed:])
    walk = _walk(
        "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else "."),
        ctx,
        recursive="/" in rest or "**" in rest,
        follow_symlinks=follow_symlinks,
    )
    wanted = _pattern(rest)
    unwanted = [_pattern(text) for text in exclude or ()]
    return _page(
        walk, cursor, ctx, lambda name: bool(wanted.fullmatch(name)) and not any(p.fullmatch(name) for p in unwanted)
    )


def _page(walk: _Walk, cursor: str | None, ctx: Context, wanted: Callable[[bytes], bool]) -> Page:
    items: list[Item] = []
    last = unquote_to_bytes(cursor) if cursor else b""
    for name in walk.files(last):
        if not wanted(name):
            continue
        if len(items) == _PAGE_ITEMS:
            return Page(items, next_cursor=quote_from_bytes(last))
        uri = "file://" + quote_from_bytes(os.path.join(walk.base, name))
        items.append(Item(key=name.decode("utf-8", "backslashreplace"), uri=uri))
        last = name
    if not items and not cursor:
        ctx.warnings.append(f"no file in {os.fsdecode(walk.base)} fits, so there is nothing to do")
    return Page(items)


def _walk(path: str, ctx: Context, *, recursive: bool, follow_symlinks: bool) -> _Walk:
    roots = tuple(os.fsencode(os.path.realpath(root)) for root in ctx.source_roots)
    if not roots:
        raise Reject("OUTSIDE_ROOTS", "no folder may be read: name some in PIXLOOM_SOURCE_ROOTS")
    candidates = [Path(path)] if os.path.isabs(path) else [Path(root) / path for root in ctx.source_roots]
    base = os.fsencode(os.path.realpath(next((one for one in candidates if one.is_dir()), candidates[0])))
    shown = os.fsdecode(base)
    if not _is_below(base, roots):
        allowed = ", ".join(map(str, ctx.source_roots))
        raise Reject("OUTSIDE_ROOTS", f"{shown} lies outside of {allowed} (PIXLOOM_SOURCE_ROOTS)")
    if not os.path.exists(base):
        raise Reject("NO_SUCH_FOLDER", f"there is no folder {shown}")
    if not os.path.isdir(base):
        raise Reject("NO_SUCH_FOLDER", f"{shown} is no folder")
    try:
        os.scandir(base).close()
    except PermissionError as error:
        raise _unreadable(base, error) from error
    return _Walk(base=base, roots=roots, recursive=recursive, follow_symlinks=follow_symlinks)


def _unreadable(path: bytes, error: OSError) -> Reject:
    return Reject("UNREADABLE_FOLDER", f"{os.fsdecode(path)} cannot be read: {error.strerror}")


def _is_below(path: bytes, roots: tuple[bytes, ...]) -> bool:
    return any(path == root or path.startswith(root.rstrip(b"/") + b"/") for root in roots)


def _pattern(text: str) -> re.Pattern[bytes]:
    """Return the expression for a glob pattern over a relative path."""
    out, place = "", 0
    while place < len(text):
        if text.startswith("**/", place):
            out, place = out + "(?:.*/)?", place + 3
        elif text.startswith("**", place):
            out, place = out + ".*", place + 2
        elif text[place] == "*":
            out, place = out + "[^/]*", place + 1
        elif text[place] == "?":
            out, place = out + "[^/]", place + 1
        elif text[place] == "[" and "]" in text[place + 2 :]:
            end = text.index("]", place + 2)
            inside = text[place + 1 : end].replace("\\", "\\\\")
            out, place = out + f"[{'^' + inside[1:] if inside.startswith('!') else inside}]", end + 1
        else:
            out, place = out + re.escape(text[place]), place + 1
    try:
        return re.compile(os.fsencode(out), re.DOTALL)
    except re.error as error:
        raise Reject("BAD_PATTERN", f"the pattern {text!r} is not valid: {error}") from error
