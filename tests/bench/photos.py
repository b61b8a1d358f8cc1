"""Photos of 1600×1200 made from the photographs of the demo, and the bare pool that engines are compared with."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom.sdk.image import Image

__all__ = ["bare_pool", "hashing_ms", "make_photos", "pipeline", "thumbnail"]


def _originals() -> list[Path]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise RuntimeError("the photographs are missing; install requirements/photos.lock")
    data = Path(spec.origin).parent / "data"
    return [data / name for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")]


def make_photos(folder: Path, count: int) -> None:
    """Write `count` different JPEGs of 1600×1200, quality 90."""
    import pyvips

    folder.mkdir(parents=True, exist_ok=True)
    sources = [pyvips.Image.thumbnail(str(path), 1900, height=1500, size="force") for path in _originals()]
    pages = [image.extract_band(0, n=min(3, image.bands)).copy_memory() for image in sources]
    for index in range(count):
        path = folder / f"photo_{index:05d}.jpg"
        if path.exists():
            continue
        page = pages[index % len(pages)]
        left, top = (index * 7) % 300, (index * 13) % 300
        page.extract_area(left, top, 1600, 1200).jpegsave(str(path), Q=90)


def thumbnail(path: str, out: str) -> None:
    """Read a photo, run what `image.thumbnail` runs, encode and write: no hashing, no fsync, no record."""
    from pixloom_executor.ops.image_thumbnail import thumbnail as op

    image = op(_opened(path), width=256)
    Path(out).write_bytes(image.encoded().data)


def _opened(path: str) -> Image:
    """Return a photo of the bench unopened, its record filled as the engine's header probe would."""
    from pixloom.sdk.image import Image
    from pixloom.sdk.record import Item

    data = Path(path).read_bytes()
    record = Item(key=path, format="jpeg", size_bytes=len(data), width=1600, height=1200, pages=1, orientation=1)
    # A profile is converted to sRGB by the op; whether there is one is what the engine learns from its probe.
    record.icc = b"ICC_PROFILE" in data[:65536]
    return Image.from_bytes(data, record)


def pipeline(path: str, out: str) -> None:
    """Run the three ops by hand in one process."""
    from pixloom_executor.ops.image import sharpen
    from pixloom_executor.ops.image_convert import convert
    from pixloom_executor.ops.image_resize import resize

    image = convert(sharpen(resize(_opened(path), width=512, height=512)), format="jpeg")
    Path(out).write_bytes(image.encoded().data)


def bare_pool(
    work: Callable[[str, str], None], photos: list[Path], out: Path, processes: int = 2
) -> tuple[float, float]:
    """Run `work` in a plain process pool, after a warm-up.

    Returns:
        Photos a second, and milliseconds of processor time in `work` for a photo.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(work, str(photo), str(out / hashlib.sha1(photo.name.encode()).hexdigest())) for photo in photos]  # noqa: S324
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_timed, jobs[: 8 * processes], chunksize=1)
        begin = time.perf_counter()
        spent_ns = pool.starmap(_timed, jobs, chunksize=8)
        return len(jobs) / (time.perf_counter() - begin), sum(spent_ns) / len(jobs) / 1e6


def _timed(work: Callable[[str, str], None], path: str, out: str) -> int:
    """Return the nanoseconds of processor time that `work` takes."""
    begin = time.process_time_ns()
    work(path, out)
    return time.process_time_ns() - begin


def hashing_ms(photos: list[Path]) -> float:
    """Return the milliseconds of processor time that the SHA-256 of a photo takes."""
    spent_ns = 0
    for photo in photos:
        data = photo.read_bytes()
        begin = time.process_time_ns()
        hashlib.sha256(data).digest()
        spent_ns += time.process_time_ns() - begin
    return spent_ns / len(photos) / 1e6
