"""A data set that is not at hand is downloaded, checked and kept; another file is refused with a remedy."""

import bz2
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedsafe.data.catalogue.acs import ORIGINAL as ACS
from fedsafe.data.catalogue.acs import load_acs_states
from fedsafe.data.catalogue.heart import ORIGINAL as HEART
from fedsafe.data.catalogue.heart import load_heart
from fedsafe.data.catalogue.mnist import DIGITS, LABELS, load_mnist_writers
from fedsafe.data.catalogue.parkinsons import ORIGINAL as PARKINSONS
from fedsafe.data.catalogue.parkinsons import load_parkinsons
from fedsafe.data.catalogue.r_file import read_r_frame
from fedsafe.data.catalogue.shakespeare import ORIGINAL as SHAKESPEARE
from fedsafe.data.catalogue.shakespeare import load_shakespeare, speeches
from fedsafe.data.sources import RemoteFile, local_copy
from fedsafe.errors import DataError

PLAY = "\n\n".join(
    ["First Lord:\n" + "To be, or not. " * 9, "WITCH:\n" + "Double, double\n" * 9, "FIRST LORD:\nExit\u00e9."]
)


def idx(array: np.ndarray) -> bytes:
    kind = {"u": 0x08, "i": 0x0C}[array.dtype.kind]
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def mnist_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = []
    for count in (30, 10):
        contents += [
            idx(rng.integers(0, 256, (count, 4, 4), np.uint8)),
            idx(np.arange(count, dtype=np.uint8) % 10),
        ]
    for count in (30, 20):  # the second has more digits than MNIST's test set, as QMNIST has
        rows = np.arange(count)[:, None] * np.ones(8)
        rows[:, 0], rows[:, 2] = np.arange(count) % 10, 2000 + np.arange(count) // 5
        contents.append(idx(rows.astype(">i4")))
    return dict(zip([*DIGITS, *LABELS], contents, strict=True))


def r_text(text: str) -> bytes:
    return struct.pack(">II", 0x00040009, len(text)) + text.encode()


def r_file(columns: Mapping[str, list[Any]]) -> bytes:
    """An R data file with one data frame, as R Internals describes it."""
    out = b"RDX2\nX\n" + struct.pack(">III", 2, 0x30400, 0x20300) + struct.pack(">I", 0x402)
    out += struct.pack(">I", 1) + r_text("frame") + struct.pack(">II", 0x313, len(columns))
    for values in columns.values():
        if isinstance(values[0], str):
            out += struct.pack(">II", 16, len(values)) + b"".join(map(r_text, values))
        elif isinstance(values[0], float):
            out += struct.pack(f">II{len(values)}d", 14, len(values), *values)
        else:
            out += struct.pack(f">II{len(values)}i", 13, len(values), *values)
    out += struct.pack(">I", 0x402) + struct.pack(">I", 1) + r_text("names")
    out += struct.pack(">II", 16, len(columns)) + b"".join(map(r_text, columns))
    out += struct.pack(">I", 0x402) + struct.pack(">I", 1) + r_text("row.names")
    out += struct.pack(">IIii", 13, 2, -(2**31), -1) + struct.pack(">I", 254)  # attributes end
    return out + struct.pack(">I", 254)  # variables end


def heart_files() -> dict[str, bytes]:
    row = "{age},1,4,140,0,0,2,150,?,2.3,?,?,?,{num}\n"
    return {
        name: "".join(row.format(age=40 + k + 10 * at, num=k % 3) for k in range(5)).encode()
        for at, name in enumerate(HEART)
    }


def parkinsons_files() -> dict[str, bytes]:
    names = "subject#,age,sex,test_time,motor_UPDRS,total_UPDRS,Jitter(%),Jitter(Abs),Jitter:RAP,Jitter:PPQ5,"
    names += "Jitter:DDP,Shimmer,Shimmer(dB),Shimmer:APQ3,Shimmer:APQ5,Shimmer:APQ11,Shimmer:DDA,NHR,HNR,RPDE,DFA,PPE\n"
    rows = [
        f"{p},{50 + p},{p % 2},{k},{p},{2 * p}," + ",".join(["0.01"] * 16)
        for p in range(1, 13)
        for k in range(3)
    ]
    return {"parkinsons_updrs.data": (names + "\n".join(rows) + "\n").encode()}


def acs_files() -> dict[str, bytes]:
    table = {
        "stabbr": ["CA", "AK"] * 10, "agep": [float(20 + k) for k in range(20)], "sex": [1, 2] * 10, "mar": [1, 5] * 10,
        "pincp": [float(5000 * k) for k in range(20)], "wagp": [0.0] * 20,
    }  # fmt: skip
    return {"acsbig.rda": bz2.compress(r_file(table))}


@dataclass(frozen=True)
class Case:
    load: Callable[..., Any]
    files: dict[str, bytes]
    originals: dict[str, Mapping[str, RemoteFile]]  # by the loader's argument
    folder: str
    records: int

    def remotes(self, server: str, **change: Any) -> dict[str, Mapping[str, RemoteFile]]:
        return {
            argument: {name: self.remote(server, name, shipped, **change) for name, shipped in files.items()}
            for argument, files in self.originals.items()
        }

    def remote(self, server: str, name: str, shipped: RemoteFile, **change: Any) -> RemoteFile:
        content = self.files[name]
        made = replace(
            shipped, url=f"{server}/{name}", sha256=hashlib.sha256(content).hexdigest(), size=len(content)
        )
        return replace(made, **change)


CASES = {
    "mnist-writers": Case(load_mnist_writers, mnist_files(), {"digits": DIGITS, "labels": LABELS}, "mnist", 40),
    "heart": Case(load_heart, heart_files(), {"original": HEART}, "heart_disease", 20),
    "parkinsons": Case(
        load_parkinsons, parkinsons_files(), {"original": PARKINSONS}, "parkinsons_telemonitoring", 36
    ),
    "acs-states": Case(load_acs_states, acs_files(), {"original": ACS}, "acs_pums", 20),
    "shakespeare": Case(
        lambda **files: load_shakespeare(length=20, least=50, **files), {"input.txt": PLAY.encode()},
        {"original": SHAKESPEARE}, "tinyshakespeare", 13,
    ),
}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = self.server.files.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def serve() -> Iterator[Callable[[Case], str]]:
    """``serve(case)`` answers with its files, compressed where the real address does so."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files = {}
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()

        def start(case: Case) -> str:
            for files in case.originals.values():
                for name, shipped in files.items():
                    content = case.files[name]
                    running.files[name] = gzip.compress(content) if shipped.packed else content
            return f"http://127.0.0.1:{running.server_port}"

        yield start
        running.shutdown()
        thread.join()


def cache_only(tmp_path) -> dict[str, str]:
    return {"FEDSAFE_CACHE_DIR": str(tmp_path / "cache")}


@pytest.mark.parametrize("name", CASES)
def test_a_download_is_checked_and_kept_and_then_used_without_a_server(name, serve, tmp_path):
    case, environment = CASES[name], cache_only(tmp_path)
    task = case.load(environment=environment, **case.remotes(serve(case)))
    assert task.name == name
    assert len(task.train) + len(task.evaluation) == case.records
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cache" / case.folder).iterdir()}
    assert kept == case.files
    again = case.load(environment=environment, **case.remotes("http://127.0.0.1:9"))
    np.testing.assert_array_equal(again.train.x, task.train.x)


@pytest.mark.parametrize("name", CASES)
def test_the_users_folder_comes_first_and_is_checked(name, tmp_path):
    case = CASES[name]
    folder = tmp_path / "data" / case.folder
    folder.mkdir(parents=True)
    for file, content in case.files.items():
        (folder / file).write_bytes(content)
    environment = {**cache_only(tmp_path), "FEDSAFE_DATA_DIR": str(tmp_path / "data")}
    remotes = case.remotes("http://127.0.0.1:9")
    assert case.load(environment=environment, **remotes).name == name
    file = next(iter(case.files))
    (folder / file).write_bytes(case.files[file] + b" ")
    with pytest.raises(DataError, match=f"{file} is not the file it should be"):
        case.load(environment=environment, **remotes)


@pytest.mark.parametrize("name", CASES)
def test_another_file_is_refused_and_not_kept(name, serve, tmp_path):
    case = CASES[name]
    with pytest.raises(DataError, match=f"expected sha256 {'0' * 64}, got "):
        case.load(environment=cache_only(tmp_path), **case.remotes(serve(case), sha256="0" * 64))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", CASES)
def test_an_absent_file_is_named_with_the_place_to_put_it(name, serve, tmp_path):
    case = CASES[name]
    server = serve(case)
    environment = {**cache_only(tmp_path), "FEDSAFE_DATA_DIR": str(tmp_path / "data")}
    file = next(iter(case.files))
    message = rf"is not on this machine\. .*404.* Or put it at {tmp_path}/data/{case.folder}/{file}\."
    with pytest.raises(DataError, match=message):
        case.load(environment=environment, **case.remotes(f"{server}/absent"))


def test_a_packed_answer_that_is_not_packed_or_too_long_is_refused(serve, tmp_path):
    case = CASES["mnist-writers"]
    server = serve(case)
    remotes = case.remotes(server, size=100)
    with pytest.raises(DataError, match=r"went on at 101 bytes of 100"):
        case.load(environment=cache_only(tmp_path), **remotes)
    unpacked = {
        argument: {file: replace(shipped, packed=False) for file, shipped in files.items()}
        for argument, files in case.originals.items()
    }
    server = serve(replace(case, originals=unpacked))
    with pytest.raises(DataError, match="could not be downloaded: Error -3"):
        case.load(environment=cache_only(tmp_path), **case.remotes(server))


def test_a_packed_copy_in_the_users_folder_is_unpacked_and_checked_by_its_content(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "labels.gz").write_bytes(gzip.compress(b"content", compresslevel=1))
    environment = {"FEDSAFE_DATA_DIR": str(tmp_path)}
    assert local_copy(environment, "mnist/labels", hashlib.sha256(b"content").hexdigest()) == b"content"
    assert local_copy(environment, "mnist/absent", "0") is None
    assert local_copy({}, "mnist/labels", "0") is None
    with pytest.raises(DataError, match=r"labels\.gz is not the file it should be"):
        local_copy(environment, "mnist/labels", "0")
    (tmp_path / "mnist" / "labels.gz").write_bytes(b"content")
    with pytest.raises(DataError, match=r"labels\.gz is not a file compressed by gzip"):
        local_copy(environment, "mnist/labels", "0")


def loaded(name: str, tmp_path, **files: bytes) -> Any:
    """A case whose files, or some of them, are others: from the cache, with their own checksums."""
    case = replace(CASES[name], files={**CASES[name].files, **files})
    for file, content in case.files.items():
        path = tmp_path / "cache" / case.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return case.load(environment=cache_only(tmp_path), **case.remotes("http://127.0.0.1:9"))


def test_each_digit_keeps_its_writer(tmp_path):
    task = loaded("mnist-writers", tmp_path)
    assert task.train.holders["writer"].tolist() == [str(2000 + k // 5) for k in range(30)]
    assert set(task.evaluation.holders["writer"]) == {"2000", "2001"}
    assert task.train.x.max() <= 1
    wrong = (
        np.frombuffer(CASES["mnist-writers"].files["qmnist-train-labels-idx2-int"][12:], ">i4")
        .reshape(30, 8)
        .copy()
    )
    wrong[3, 0] = 9
    with pytest.raises(DataError, match="are not those of MNIST: the writers would be other digits'"):
        loaded("mnist-writers", tmp_path, **{"qmnist-train-labels-idx2-int": idx(wrong)})


def test_missing_values_of_hospitals_are_a_category_of_their_own(tmp_path):
    task = loaded("heart", tmp_path)
    names = task.schema.feature_names
    for column in ("chol", "exang", "slope", "ca", "thal"):  # a cholesterol of 0 is missing
        assert (task.train.x[:, names.index(f"{column}=missing")] == 1).all()
    assert (task.train.x[:, names.index("trestbps=missing")] == 0).all()
    assert set(task.train.holders["hospital"]) == {"Cleveland", "Hungary", "Switzerland", "Long Beach"}
    together = np.concatenate([task.train.y, task.evaluation.y])
    assert together.sum() == 3 * 4  # of five patients three have num > 0


def test_numbers_that_hospitals_write_differently_are_the_same(tmp_path):
    other = (
        CASES["heart"]
        .files["processed.va.data"]
        .replace(b",1,4,140,0,0,2,150,", b",1.0,4.0,140.0,0.0,0.0,2.0,150.0,")
    )
    task, same = loaded("heart", tmp_path), loaded("heart", tmp_path, **{"processed.va.data": other})
    np.testing.assert_array_equal(task.train.x, same.train.x)


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("heart", "processed.va.data", b"71,1,4,140,0", b"99,0,1,90,999"),
        ("parkinsons", "parkinsons_updrs.data", b"1,51,1,0,1,2,0.01", b"1,90,0,199,60,80,99"),
    ],
)
def test_another_record_of_a_file_changes_no_other_records_encoding(name, file, old, new, tmp_path):
    content = CASES[name].files[file]
    assert content.count(old) == 1
    before, after = loaded(name, tmp_path), loaded(name, tmp_path, **{file: content.replace(old, new)})
    different = [
        (a.x != b.x).any(axis=1).sum()
        for a, b in ((before.train, after.train), (before.evaluation, after.evaluation))
    ]
    assert sum(different) == 1


def test_a_record_with_another_number_of_fields_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Record 6 of processed\.va\.data has 3 fields instead of 14"):
        loaded(
            "heart", tmp_path, **{"processed.va.data": CASES["heart"].files["processed.va.data"] + b"1,2,3\n"}
        )


def test_windows_of_a_speaker_follow_each_other_and_the_last_are_for_evaluation(tmp_path):
    assert {name: text[:14] for name, text in speeches(PLAY).items()} == {
        "FIRST LORD": "To be, or not.", "WITCH": "Double, double",
    }  # fmt: skip
    task = loaded("shakespeare", tmp_path)
    tokens = task.classes
    for speaker, text in speeches(PLAY).items():
        windows = [
            "".join(tokens[token] for token in window)
            for part in (task.train, task.evaluation)
            for window in part.x[part.holders["speaker"] == speaker]
        ]
        shown = text.replace("\u00e9", "<unknown>")
        assert shown.startswith("".join(windows))
        assert len(windows) == (len(text) - 1) // 20
    np.testing.assert_array_equal(task.train.x[:, 1:], task.train.y[:, :-1])
    assert set(task.train.holders["speaker"]) == set(task.evaluation.holders["speaker"])


def test_a_play_without_a_speaker_who_says_enough_is_refused(tmp_path):
    with pytest.raises(DataError, match="No speaker says 50 characters"):
        loaded("shakespeare", tmp_path, **{"input.txt": b"WITCH:\nDouble\n"})


def test_an_r_file_gives_its_columns_and_nothing_else_is_read():
    table = {"a": ["x", "y"], "b": [1, -2], "c": [0.5, 1e300]}
    assert read_r_frame(r_file(table)) == table
    with pytest.raises(DataError, match="not in the binary format of version 2"):
        read_r_frame(b"RDA3" + r_file(table))
    with pytest.raises(DataError, match="it breaks off"):
        read_r_frame(r_file(table)[:90])
