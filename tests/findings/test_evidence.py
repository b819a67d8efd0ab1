"""What single examples say stays in memory, and pictures are plain values."""

import base64

import numpy as np
import pytest

from fedsafe.errors import ConfigError
from fedsafe.findings import Evidence, Finding, picture, proportion


def flags(*rows: int) -> Evidence:
    return Evidence(rows=np.array(rows), holds=np.array([row % 2 == 0 for row in rows]))


def test_evidence_is_joined_by_row_whatever_the_order() -> None:
    left, right = flags(4, 1, 7, 2), flags(2, 9, 4)
    assert left.shared(right).tolist() == [2, 4]
    assert left.on(np.array([1, 2, 4])).tolist() == [False, True, True]


def test_a_row_comes_once_and_with_one_flag() -> None:
    with pytest.raises(ConfigError, match="twice"):
        flags(1, 1)
    with pytest.raises(ConfigError, match="one flag"):
        Evidence(rows=np.arange(3), holds=np.ones(2, bool))


def test_evidence_is_never_written() -> None:
    finding = proportion("performance.accuracy", 1, 2, evidence=flags(0, 1))
    assert "evidence" not in finding.to_json()
    assert Finding.from_json(finding.to_json()) == finding


def test_pixels_come_back_from_a_picture() -> None:
    pixels = np.array([[0.0, 0.5], [0.25, 1.0]])
    made = picture("a digit", pixels, low=0.0, high=1.0)
    found = np.frombuffer(base64.b64decode(made["bytes"]), dtype=np.uint8).reshape(2, 2)
    assert found.tolist() == [[0, 128], [64, 255]]
    assert (made["low"], made["high"], made["height"], made["width"]) == (0.0, 1.0, 2, 2)


def test_a_signed_picture_has_zero_in_the_middle_and_a_flat_one_is_grey() -> None:
    signed = picture("moved", np.array([[-0.2, 0.0, 0.1]]), scale="signed")
    assert list(base64.b64decode(signed["bytes"])) == [0, 128, 191]
    assert set(base64.b64decode(picture("flat", np.zeros((2, 2)))["bytes"])) == {128}


@pytest.mark.parametrize("pixels", [np.zeros(4), np.full((2, 2), np.nan), np.zeros((100, 100))])
def test_what_is_no_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="picture 'x'"):
        picture("x", pixels)
