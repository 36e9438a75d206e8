"""Tar archives: their files are found as tarfile finds them, and no archive makes us read more than it may have."""

import gzip
import io
import pathlib
import tarfile
import zipfile

import pytest

from cnnjax.data import archives
from cnnjax.data.build import build
from cnnjax.errors import InputError
from tests.data.original_files import BIN, silent, write_cifar

FILES = {"a": b"123", f"{'folder/' * 20}b": b"", "größe/c": b"x" * 1000, f"{'d' * 120}": b"y" * 512}


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            folder = tarfile.TarInfo(f"{name}-folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            link = tarfile.TarInfo(f"{name}-link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return buffer.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_regular_files_are_found_by_name_and_nothing_else(form: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar(FILES, form))
    with archives.open_tar(tmp_path / "x.tar") as archive:
        assert {member.name: archive.read(member) for member in archive.members} == FILES
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar(FILES, form)))
    assert archives.read_tar_gz(tmp_path / "x.tar.gz", {"c": 50_000, "a": 50_000}) == {"a": b"123", "c": b"x" * 1000}


def header(size: bytes, kind: bytes = b"0") -> bytes:
    """A header of tar with a valid checksum."""
    fields = b"a".ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 11 + b"\0" + b" " * 8 + kind
    fields = fields.ljust(512, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


DAMAGED = {
    "a negative size": (header(b"-0000000010"), "an invalid number"),
    "a size in base 256": (header(b"\x80" + b"\0" * 3 + b"\1" + b"\0" * 7), "an invalid number"),
    "a size above the archive's": (header(b"77777777777"), "a file of 8,589,934,591 bytes, where at most"),
    "a wrong checksum": (header(b"00000000001").replace(b"a", b"b", 1), "expected a tar header"),
    "names of names of names": (header(b"00000000000", b"x") * 1100 + header(b"77777777777"), "a file of 8,589"),
    "half a header": (header(b"00000000000")[:100], "it ends within a header"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    data, words = DAMAGED[name]
    (tmp_path / "x.tar").write_bytes(data)
    with (
        pytest.raises(InputError, match=f"x.tar is truncated or not a tar: .*{words}"),
        archives.open_tar(tmp_path / "x.tar"),
    ):
        pass


ZEROS = b"\0" * (4 << 20)  # which gzip packs to 4 KB
BOMBS = {
    "a file that is read": (
        {f"{BIN}/data_batch_1.bin": ZEROS},
        "data_batch_1.bin claims 4,194,304 bytes, more",
    ),
    "a file that is passed over": ({"readme": ZEROS * 5}, "a file of 20,971,520 bytes, where at most"),
    "many files": ({f"{i}": ZEROS for i in range(5)}, "a file of 4,194,304 bytes, where at most"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_is_not_unpacked_beyond_what_its_data_set_needs(name: str, tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path, "cifar10", "bin")
    files, words = BOMBS[name]
    files |= {str(path.relative_to(tmp_path)): path.read_bytes() for path in (tmp_path / BIN).iterdir()} | files
    archive = tmp_path / "raw" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(gzip.compress(tar(files)))
    with pytest.raises(InputError, match=words):
        build("cifar10", str(archive.parent), str(tmp_path / "data"), silent)


def test_a_zip_archive_with_a_long_directory_is_refused_before_it_is_read() -> None:
    names = b"".join(b"PK\1\2" + bytes(24) + b"\7\0" + bytes(16) + b"%07d" % i for i in range(100_000))
    end = b"PK\5\6" + bytes(8) + len(names).to_bytes(4, "little") + bytes(6)
    with pytest.raises(zipfile.BadZipFile, match="its directory has 5,300,000 bytes, more than the limit of 4,194,304"):
        archives.open_zip(io.BytesIO(names + end))


def test_a_file_of_cifar_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path / "raw", "cifar10", "py")
    with next((tmp_path / "raw").rglob("test_batch")).open("r+b") as file:
        file.truncate(10 << 30)  # of which none is on the disk
    with pytest.raises(InputError, match=r"test_batch claims 10,737,418,240 bytes, more than the limit of 1,"):
        build("cifar10", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
