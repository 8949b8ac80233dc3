"""Whether a folder holds the files it held before: a short name for its content, without reading gigabytes."""

import hashlib
from pathlib import Path

__all__ = ["fingerprint"]

_WHOLE = 32 * 2**20  # bytes; larger files, which are weights, are sampled
_SAMPLE = 2**16


def fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits from the names, sizes and content of all files; of large ones three samples. Not a checksum.

    Copying the folder changes nothing; other weights, another tokenizer or chat template do.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue  # caches of download tools and file managers
        size = file.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode())
        with file.open("rb") as opened:
            if size <= _WHOLE:
                digest.update(opened.read())
                continue
            for start in (0, size // 2, size - _SAMPLE):
                opened.seek(start)
                digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()[:12]
