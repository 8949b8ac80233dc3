"""A fingerprint follows the content of a folder, not where it lies."""

import shutil

from framework.fingerprint import _WHOLE, fingerprint


def test_a_copy_has_the_same_fingerprint_and_any_change_of_a_file_another(tmp_path):
    a = tmp_path / "a"
    (a / "weights").mkdir(parents=True)
    (a / "config.json").write_text("{}")
    (a / "weights/0").write_bytes(bytes(1000))
    first = fingerprint(a)
    assert len(first) == 12
    b = shutil.copytree(a, tmp_path / "b")
    (b / ".cache").mkdir()
    (b / ".cache/lock").touch()
    assert fingerprint(b) == first
    seen = {first}
    for change in (
        lambda: (b / "config.json").write_text("[]"),
        lambda: (b / "weights/0").write_bytes(bytes(999) + b"\1"),
        lambda: (b / "weights/0").rename(b / "weights/1"),
        lambda: (b / "extra").touch(),
    ):
        change()
        seen.add(fingerprint(b))
    assert len(seen) == 5


def test_large_files_are_sampled_at_both_ends_and_in_the_middle(tmp_path):
    file = tmp_path / "weights"
    size = _WHOLE + 10
    seen = set()
    for place in (None, 0, size // 2, size - 1):
        with file.open("wb") as out:  # sparse: takes no room
            out.truncate(size)
            if place is not None:
                out.seek(place)
                out.write(b"x")
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 4
