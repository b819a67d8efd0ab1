"""A download is whole and verified, or it is an error that says how to go on."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from fedsafe.data.sources import RemoteFile, cache_dir, data_dir, download, read_verified
from fedsafe.errors import DataError

CONTENT = b"records\n" * 20_000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/silent":
            self.server.release.wait(10)
        elif self.path == "/truncated":
            self.wfile.write(CONTENT[:1000])
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.release = threading.Event()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.release.set()
        running.shutdown()
        thread.join()


def remote(url: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(url=url, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.mark.parametrize("path", ["/file", "/unsized"])
def test_a_good_download_is_the_file_and_nothing_else(server, tmp_path, path):
    target = tmp_path / "new" / "folder" / "file"
    assert download(remote(server + path), target) == target
    assert target.read_bytes() == CONTENT
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


def test_a_file_that_is_already_right_is_not_fetched_again(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    download(remote("http://127.0.0.1:9/never-asked"), tmp_path / "file")


def test_a_wrong_file_in_the_cache_is_replaced(server, tmp_path):
    (tmp_path / "file").write_bytes(b"half a download")
    download(remote(server + "/file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_with_both_checksums(server, tmp_path):
    wrong = RemoteFile(url=server + "/file", sha256="0" * 64, size=len(CONTENT))
    got = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DataError, match=f"/file.*expected sha256 {'0' * 64}, got {got}"):
        download(wrong, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_is_reported_with_its_code_and_where_to_put_it(server, tmp_path):
    with pytest.raises(DataError, match=r"/absent answered 404 Not Found.*put it at .*file"):
        download(remote(server + "/absent"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_is_reported(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"could not be downloaded: .*refused"):
        download(remote(f"http://127.0.0.1:{port}/file"), tmp_path / "file")


def test_a_truncated_answer_is_refused_and_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=r"broke off at 1000 bytes of 160000|could not be downloaded"):
        download(remote(server + "/truncated"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_longer_answer_than_stated_is_cut_off_and_refused(server, tmp_path):
    with pytest.raises(DataError, match=r"went on at \d+ bytes of 1000"):
        download(remote(server + "/unsized", CONTENT[:1000]), tmp_path / "file")


def test_a_silent_server_is_given_up(server, tmp_path):
    with pytest.raises(DataError, match=r"could not be downloaded: .*timed out"):
        download(remote(server + "/silent"), tmp_path / "file", timeout=0.2)


def test_a_folder_that_cannot_be_written_is_reported(server, tmp_path):
    (tmp_path / "occupied").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot be written.*FEDSAFE_CACHE_DIR"):
        download(remote(server + "/file"), tmp_path / "occupied" / "file")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/file", "adult.data"])
def test_only_web_addresses_are_fetched(url, tmp_path):
    with pytest.raises(DataError, match="not an http or https address"):
        download(remote(url), tmp_path / "file")


def test_a_corrupt_file_is_named_with_expected_and_actual_checksum(tmp_path):
    (tmp_path / "file").write_bytes(b"changed")
    got = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(
        DataError, match=rf"file is not the file it should be: expected sha256 abc, got {got}"
    ):
        read_verified(tmp_path / "file", "abc")
    with pytest.raises(DataError, match="absent cannot be read"):
        read_verified(tmp_path / "absent", "abc")


def test_folders_come_from_their_variables(tmp_path):
    assert data_dir({}) is None
    assert data_dir({"FEDSAFE_DATA_DIR": str(tmp_path)}) == tmp_path
    assert cache_dir({"FEDSAFE_CACHE_DIR": str(tmp_path)}) == tmp_path
    assert cache_dir({}).parts[-2:] == (".cache", "fedsafe")
