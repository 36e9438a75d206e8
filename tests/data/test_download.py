"""Downloads: whole, resumed, from mirrors, and never half there."""

import dataclasses
import hashlib
import io
import resource
import tarfile

import pytest

from cnnjax.data import catalog, download
from cnnjax.errors import InputError
from tests.data.original_files import BIN, assert_holds, silent, write_cifar


def test_download_whole_and_only_once(server, tmp_path):
    seen = []
    path = download.fetch([server.url], tmp_path / "a" / "b", server.digest, silent, lambda *now: seen.append(now))
    assert path.read_bytes() == server.content
    assert seen[-1] == (3_000_000, 3_000_000)
    download.fetch([server.url], path, server.digest, silent)
    assert server.requests == [None]
    assert [child.name for child in path.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("have", [1_000_000, 3_000_000])
def test_download_goes_on_from_a_part(server, tmp_path, ranges, have):
    server.ranges = ranges
    (tmp_path / "file.part").write_bytes(server.content[:have])
    path = download.fetch([server.url], tmp_path / "file", server.digest, silent)
    assert path.read_bytes() == server.content
    assert server.requests == [f"bytes={have}-"]


def test_download_that_is_cut_is_kept_and_goes_on(server, tmp_path):
    server.cut = 1_500_000
    with pytest.raises(InputError, match=r"could not download file \(1,500,000 bytes are kept.*cut after 1,500,000 of"):
        download.fetch([server.url], tmp_path / "file", server.digest, silent)
    assert not (tmp_path / "file").exists()
    server.cut = 0
    assert download.fetch([server.url], tmp_path / "file", server.digest, silent).read_bytes() == server.content
    assert server.requests == [None, "bytes=1500000-"]


def test_download_of_the_wrong_content_is_thrown_away(server, tmp_path):
    with pytest.raises(InputError, match=r"3,000,000 bytes with md5:\w+, expected md5:0000.*give it as the source"):
        download.fetch([server.url], tmp_path / "file", "md5:" + "0" * 32, silent)
    assert list(tmp_path.iterdir()) == []


def test_download_tries_the_mirrors_in_order(server, tmp_path):
    urls = [server.url.replace("/file", "/missing"), "http://127.0.0.1:9/closed", server.url]
    path = download.fetch(urls, tmp_path / "file", server.digest, silent)
    assert path.read_bytes() == server.content
    with pytest.raises(InputError, match=r"Not Found.*refused"):
        download.fetch(urls[:2], tmp_path / "other", server.digest, silent)


def test_a_full_disk_is_said(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"file\.part: File too large"):
            download.fetch([server.url], tmp_path / "file", server.digest, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_link_in_place_of_the_part_is_not_followed(server, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file.part").symlink_to(tmp_path / "victim")
    assert download.fetch([server.url], tmp_path / "file", server.digest, silent).read_bytes() == server.content
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("url", "digest", "is_used"),
    [
        ("https://example.org/x", "sha256:", True),
        ("http://example.org/x", "sha256:", False),
        ("http://example.org/x", "sha256:0676ba61", False),
        ("http://example.org/x", "md5:" + "0" * 32, True),
        ("http://localhost/x", "sha256:", True),
        ("http://localhost.example.org/x", "sha256:", False),
        ("ftp://example.org/x", "sha256:", False),
    ],
)
def test_without_a_digest_https_is_needed(url, digest, is_used, tmp_path):
    asked = []
    with pytest.raises(InputError, match="could not download x") as error:
        download.fetch([url], tmp_path / "x", digest, asked.append)
    assert asked == ([f"downloading {url}"] if is_used else [])
    assert ("neither https nor a full digest protects its content" in str(error.value)) != is_used


def test_a_redirection_from_https_to_http_is_refused(tmp_path, monkeypatch):
    class Response(io.BytesIO):
        url, status, headers = "http://example.org/x", 200, {}

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: Response(b"evil"))
    with pytest.raises(InputError, match=r"redirected to http://example.org/x, which is not https"):
        download.fetch(["https://example.org/x"], tmp_path / "x", "sha256:", silent)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_downloaded_and_built(server, tmp_path, monkeypatch):
    truth = write_cifar(tmp_path, "cifar10", "bin")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / BIN, BIN)
    server.content = (tmp_path / "x.tar.gz").read_bytes()
    digest = f"md5:{hashlib.md5(server.content).hexdigest()}"
    file = catalog.SourceFile("cifar-10-binary.tar.gz", (server.url,), digest)
    monkeypatch.setitem(catalog.DATASETS, "cifar10", dataclasses.replace(catalog.DATASETS["cifar10"], files=(file,)))
    assert_holds(tmp_path / "data", "cifar10", truth)
    assert (tmp_path / "data/downloads/cnnjax/cifar10/cifar-10-binary.tar.gz").is_file()
    assert server.requests == [None]
