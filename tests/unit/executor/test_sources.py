from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.sdk.op import Context, Item, Reject
from pixloom_executor.opening import path_of
from pixloom_executor.ops import sources

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("b.jpg", "a.PNG", "z.txt", "sub/c.jpeg", "sub/deep/d.webp", "sub.jpg", "é ü#.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def all_of(function: Any, ctx: Context, **params: Any) -> list[Item]:
    items, cursor = [], None
    while True:
        page = function(cursor=cursor, ctx=ctx, **params)
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


def keys(items: list[Item]) -> list[str]:
    return [item.key for item in items]


def context(*roots: Path) -> Context:
    return Context(source_roots=roots)


def test_a_folder_gives_its_images_in_order(root: Path) -> None:
    items = all_of(sources.folder, context(root), path=str(root))
    assert keys(items) == ["a.PNG", "b.jpg", "sub/c.jpeg", "sub/deep/d.webp", "sub.jpg", "é ü#.jpg"]
    assert os.fsdecode(path_of(items[-1].uri)) == str(root / "é ü#.jpg")
    assert "#" not in items[-1].uri


def test_a_relative_path_is_below_a_root(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert keys(all_of(sources.folder, context(other, root), path="sub")) == ["c.jpeg", "deep/d.webp"]


def test_extensions_and_depth_are_chosen(root: Path) -> None:
    ctx = context(root)
    assert keys(all_of(sources.folder, ctx, path=str(root), extensions=["TXT", ".webp"])) == [
        "sub/deep/d.webp",
        "z.txt",
    ]
    assert keys(all_of(sources.folder, ctx, path=str(root), recursive=False, extensions=["jpg"])) == [
        "b.jpg",
        "sub.jpg",
        "é ü#.jpg",
    ]


@pytest.mark.parametrize("page_items", [1, 2, 3, 5, 6, 7])
def test_pages_of_any_size_give_every_file_once_and_in_the_same_order(
    root: Path, monkeypatch: pytest.MonkeyPatch, page_items: Any
) -> None:
    whole = keys(all_of(sources.folder, context(root), path=str(root)))
    monkeypatch.setattr(sources, "_PAGE_ITEMS", page_items)
    assert keys(all_of(sources.folder, context(root), path=str(root))) == whole


def test_names_that_are_no_text_are_given(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.fsencode(root) + b"/\xff\xfe.jpg", "wb"):  # noqa: PTH123
        pass
    monkeypatch.setattr(sources, "_PAGE_ITEMS", 1)
    items = all_of(sources.folder, context(root), path=str(root), recursive=False)
    item = items[-1]
    assert item.key == "\\xff\\xfe.jpg"
    assert path_of(item.uri) == os.fsencode(root) + b"/\xff\xfe.jpg"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nothing", "NO_SUCH_FOLDER"), ("b.jpg", "NO_SUCH_FOLDER"), ("..", "OUTSIDE_ROOTS"), ("/", "OUTSIDE_ROOTS")],
)
def test_a_folder_that_cannot_be_read_is_refused_with_its_reason(root: Path, path: Any, reason: Any) -> None:
    with pytest.raises(Reject) as caught:
        sources.folder(path=path, ctx=context(root))
    assert caught.value.reason == reason


def test_nothing_is_read_without_source_roots(root: Path) -> None:
    with pytest.raises(Reject, match="PIXLOOM_SOURCE_ROOTS"):
        sources.folder(path=str(root), ctx=context())


def test_links_are_followed_only_when_asked_and_never_out_of_the_roots(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"x")
    (root / "out").symlink_to(outside)
    (root / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "in.jpg").symlink_to(root / "b.jpg")
    (root / "loop").symlink_to(root)
    plain = keys(all_of(sources.folder, context(root), path=str(root), recursive=False))
    assert not {"in.jpg", "out.jpg"} & set(plain)
    followed = keys(all_of(sources.folder, context(root), path=str(root), follow_symlinks=True))
    assert "in.jpg" in followed
    assert not [key for key in followed if "secret" in key or key == "out.jpg" or key.startswith("loop/")]
    with pytest.raises(Reject) as caught:
        sources.folder(path=str(root / "out"), ctx=context(root))
    assert caught.value.reason == "OUTSIDE_ROOTS"


def test_an_empty_folder_is_no_error_but_a_warning(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    page = sources.folder(path=str(tmp_path), ctx=ctx)
    assert (list(page.items), page.next_cursor) == ([], None)
    assert "nothing to do" in ctx.warnings[0]


@pytest.mark.parametrize(
    ("pattern", "exclude", "found"),
    [
        ("*.jpg", None, ["b.jpg", "sub.jpg", "é ü#.jpg"]),
        ("**/*.jp*g", None, ["b.jpg", "sub/c.jpeg", "sub.jpg", "é ü#.jpg"]),
        ("**/*.jp*g", ["sub/**"], ["b.jpg", "sub.jpg", "é ü#.jpg"]),
        ("sub/*", None, ["c.jpeg"]),
        ("sub/**", None, ["c.jpeg", "deep/d.webp"]),
        ("[ab].*", None, ["a.PNG", "b.jpg"]),
        ("[!a].???", None, ["b.jpg", "z.txt"]),
        ("*/c.jpeg", None, ["sub/c.jpeg"]),
        ("b.jpg", None, ["b.jpg"]),
        ("*.nothing", None, []),
    ],
)
def test_a_pattern_chooses_files(root: Path, pattern: Any, exclude: Any, found: Any) -> None:
    assert keys(all_of(sources.glob, context(root), pattern=pattern, exclude=exclude)) == found
    absolute = all_of(sources.glob, context(root), pattern=f"{root}/{pattern}", exclude=exclude)
    assert keys(absolute) == found


def test_a_pattern_outside_the_roots_is_refused(root: Path) -> None:
    with pytest.raises(Reject) as caught:
        sources.glob(pattern="../*.jpg", ctx=context(root))
    assert caught.value.reason == "OUTSIDE_ROOTS"


def test_a_link_to_itself_is_no_file(root: Path) -> None:
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    names = keys(all_of(sources.folder, context(root), path=str(root), follow_symlinks=True))
    assert "loop.jpg" not in names
    assert "sub.jpg" in names


def test_a_folder_that_is_removed_meanwhile_has_no_files(root: Path) -> None:
    def wanted(name: bytes) -> bool:
        shutil.rmtree(root / "sub", ignore_errors=True)  # listed by now, and not yet entered
        return name.endswith(b".jpg")

    base = os.fsencode(root)
    walk = sources._Walk(base=base, roots=(base,), recursive=True, follow_symlinks=False)
    page = sources._page(walk, None, context(root), wanted)
    assert keys(list(page.items)) == ["b.jpg", "sub.jpg", "é ü#.jpg"]


def test_pages_are_few(root: Path) -> None:
    for number in range(5_000):
        (root / f"{number}.jpg").touch()
    assert sources.folder(path=str(root), cursor=None, ctx=context(root)).next_cursor is None
