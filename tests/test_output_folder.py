"""An output folder gets all its files or none, and stays the folder it is."""

import errno
import json
import os

import pytest

from facerig_jax.io import folder as output
from facerig_jax.io.files import WriteError
from facerig_jax.io.folder import RECORD, check_folder, whole_folder

FIRST = {"rig.npz": "1", "views/a.ply": "1", "views/only_first.ply": "1"}
SECOND = {"rig.npz": "2", "views/a.ply": "2", "steps/new.png": "2"}


def write(path, files: dict, overwrite=False):
    """A fit's files, with their record."""
    with whole_folder(path, overwrite) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        (folder / RECORD).write_text(json.dumps({"files": list(files)}))


def contents(path) -> dict:
    """Every file with its text, and every empty folder."""
    everything = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*"))}
    files = {name: file.read_text() for name, file in everything.items() if file.is_file() and name != RECORD}
    return files | {f"{name}/": "" for name, file in everything.items() if file.is_dir() and not any(file.iterdir())}


@pytest.fixture
def closed_parent(tmp_path):
    """A folder, and what fails when anything beside it is made, renamed or removed."""
    path = tmp_path / "parent" / "out"
    path.mkdir(parents=True)
    before = (path.stat().st_ino, path.parent.stat().st_mtime_ns)
    yield path
    assert (path.stat().st_ino, path.parent.stat().st_mtime_ns) == before


def test_a_folder_that_is_there_stays_itself_and_nothing_beside_it_is_touched(closed_parent):
    write(closed_parent, FIRST)
    (closed_parent / "views" / "mine.txt").write_text("keep")
    write(closed_parent, SECOND)
    assert contents(closed_parent) == {**SECOND, "views/mine.txt": "keep"}
    assert json.loads((closed_parent / RECORD).read_text())["files"] == list(SECOND)


def test_the_folder_one_is_in_can_be_written_to(closed_parent, monkeypatch):
    monkeypatch.chdir(closed_parent)
    write(".", FIRST)
    assert os.path.exists("rig.npz")
    assert os.getcwd() == str(closed_parent)


def test_a_link_to_a_folder_stays_a_link_and_its_target_is_filled(tmp_path, closed_parent):
    link = tmp_path / "link"
    link.symlink_to(closed_parent)
    write(link, FIRST)
    write(link, SECOND)
    assert link.is_symlink()
    assert contents(closed_parent) == SECOND


def test_a_link_to_nowhere_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(WriteError, match="is a link to .*gone, which does not exist"):
        check_folder(tmp_path / "link")


def test_a_mount_point_that_cannot_be_renamed_is_filled(closed_parent, monkeypatch):
    replace = os.replace

    def busy(source, target):
        if str(closed_parent) in (str(source), str(target)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    write(closed_parent, FIRST)
    assert contents(closed_parent) == FIRST


@pytest.mark.parametrize("number", range(8))  # four files leave, four come
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_the_files_are_put_there_undoes_all(tmp_path, monkeypatch, number, error):
    path = tmp_path / "out"
    write(path, FIRST)
    (path / "mine.txt").write_text("keep")
    before, replace, calls = {**contents(path), "record": (path / RECORD).read_text()}, os.replace, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == number + 1:
            raise error
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt):
            write(path, SECOND)
    assert {**contents(path), "record": (path / RECORD).read_text()} == before
    assert sorted(name for name in os.listdir(path)) == [RECORD, "mine.txt", "rig.npz", "views"]


def test_an_error_while_the_files_are_made_leaves_the_earlier_fit(tmp_path):
    def fails():
        with whole_folder(tmp_path / "out") as folder:
            (folder / "rig.npz").write_text("2")
            raise RuntimeError("stop")

    write(tmp_path / "out", FIRST)
    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert contents(tmp_path / "out") == FIRST
    assert os.listdir(tmp_path) == ["out"]


def test_folders_within_the_output_folder_may_be_links_to_another_file_system(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    write(tmp_path / "out", {"rig.npz": "1"})
    (tmp_path / "out" / "views").symlink_to(other)
    replace = os.replace

    def crosses(source, target):
        if ("views" in os.fspath(source)) != ("views" in os.fspath(target)) or "views/" in os.fspath(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", crosses)
    write(tmp_path / "out", SECOND)
    assert (tmp_path / "out" / "views").is_symlink()
    assert (other / "a.ply").read_text() == "2"


def test_a_folder_in_the_way_of_a_file_is_named_and_stays(tmp_path):
    write(tmp_path / "out", FIRST)
    (tmp_path / "out" / "steps" / "new.png").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"new\.png is a folder"):
        write(tmp_path / "out", SECOND)
    assert contents(tmp_path / "out") == {**FIRST, "steps/new.png/": ""}


def test_a_record_cannot_make_us_touch_files_outside(tmp_path):
    write(tmp_path / "out", FIRST)
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "out" / RECORD).write_text(json.dumps({"files": ["../mine.txt", str(tmp_path / "mine.txt"), "views"]}))
    write(tmp_path / "out", SECOND)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_fit(tmp_path, monkeypatch):
    write(tmp_path / "out", FIRST)
    inner, make = str(tmp_path / "out" / "views"), output.tempfile.TemporaryFile

    def read_only(dir):
        if str(dir) == inner:
            raise OSError(errno.EROFS, "Read-only file system")
        return make(dir=dir)

    monkeypatch.setattr(output.tempfile, "TemporaryFile", read_only)
    with pytest.raises(WriteError, match=r"views may not be written to \(Read-only file system\)"):
        check_folder(tmp_path / "out")
