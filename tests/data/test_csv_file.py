"""A CSV cell is read from its own column, or the file is refused with the line and the remedy."""

import bz2
import gzip
import lzma
import zipfile

import pytest

from fedsafe.data.csv_file import read_csv
from fedsafe.data.tables import read_table
from fedsafe.errors import DataError

GOOD = b"a,b\n1,x\n2,y\n"


def written(path, content):
    path.write_bytes(content)
    return path


def zipped(path, content, files=("t.csv",)):
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", ["csv", "CSV", "csv.gz", "csv.xz", "csv.bz2", "csv.zip"])
def test_a_compressed_file_reads_like_a_plain_one_and_is_checked_too(tmp_path, suffix):
    pack = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}.get(suffix[4:], bytes)
    path = tmp_path / f"t.{suffix}"
    make = zipped if suffix.endswith("zip") else lambda path, content: written(path, pack(content))
    assert read_table(make(path, GOOD)).to_dict("list") == {"a": ["1", "2"], "b": ["x", "y"]}
    with pytest.raises(DataError, match=r"line 3 has 3 field\(s\), the header 2"):
        read_table(make(path, b"a,b\n1,x\n2,y,z\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a,b\n1,x,\n2,y,\n",
            r"line 2 has 3 field\(s\), the header 2",
        ),  # pandas would take 1 and 2 for an index
        (b"a,b\n1,x\n2\n", r"line 3 has 1 field\(s\), the header 2"),
        (b"a,b\r\n1,x\r\n\r\n1,200,y\r\n", r"line 4 has 3 field\(s\)"),
        (b'a,b\n"1\n1",x\n2,"y\ny",z\n3,w\n', r"line 4 has 3 field\(s\)"),
        (b"\n\na,b\n1\n", r"line 4 has 1 field\(s\)"),
    ],
)
def test_a_record_of_another_length_than_the_header_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"t\.csv cannot be parsed: {message}"):
        read_table(written(tmp_path / "t.csv", content))


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (GOOD.replace(b"\n", b"\r\n"), [["1", "x"], ["2", "y"]]),
        (b"\xef\xbb\xbf" + GOOD, [["1", "x"], ["2", "y"]]),
        (b"\na,b\n\n1,x\n   \n2,y\n\n", [["1", "x"], ["2", "y"]]),
        (b'a, b\n1, "x, y"\n2,"say ""so"""\n', [["1", "x, y"], ["2", 'say "so"']]),
        (b'a,b\n1,"x\n\nx"\n,\n', [["1", "x\n\nx"], ["", ""]]),
        (b"a,b\n", []),
    ],
)
def test_blank_lines_quotes_and_byte_order_marks_shift_nothing(tmp_path, content, rows):
    frame = read_table(written(tmp_path / "t.csv", content))
    assert list(frame.columns) == ["a", "b"]
    assert frame.index.tolist() == list(range(len(rows)))
    assert frame.to_numpy().tolist() == rows


def test_a_name_that_occurs_twice_stays_as_it_is_written(tmp_path):
    assert list(read_csv(written(tmp_path / "t.csv", b"a,b,a\n1,2,3\n")).columns) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a;b\n1,5;x\n", "its header is one column, 'a;b'.*separated by commas"),
        (b"a\tb\n1\tx\n", r"its header is one column, 'a\\tb'.*separated by commas"),
        ("a,b\n1,caf\u00e9\n".encode("latin-1"), "not UTF-8 text. Save it as UTF-8"),
        ("a,b\n1,x\n".encode("utf-16"), "not UTF-8 text. Save it as UTF-8"),
        (b"\n \n", "no header line"),
        (b"a\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
        (b'a\n"x\n', "EOF inside string"),
    ],
)
def test_another_separator_or_encoding_is_refused_with_a_remedy(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"t\.csv cannot be parsed: .*{message}"):
        read_table(written(tmp_path / "t.csv", content))


def test_an_archive_of_two_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds 2 files instead of one"):
        read_table(zipped(tmp_path / "t.csv.zip", GOOD, files=("t.csv", "u.csv")))
