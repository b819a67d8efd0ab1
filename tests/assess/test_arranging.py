"""Images are given to a model with the channels innermost, where that changes nothing but time."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsafe.assess import Subject
from fedsafe.data import load_task
from fedsafe.models import build_model


class _Flat(nn.Module):
    """Its own code reads the values of an image in an order that it takes for granted."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.convolution, self.last, self.how = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10), how

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convolution(x)
        flat = maps.view(len(x), -1) if self.how == "view" else maps.as_strided((len(x), 256), (256, 1))
        return self.last(flat)


class _Seen(nn.Module):
    """Remembers how its inputs lay."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.strides = model, set[Any]()

    def forward(self, x: Tensor) -> Tensor:
        self.strides.add(x.stride())
        return self.model(x)


def _subject(model: nn.Module) -> Subject:
    task = load_task("digits")
    return Subject(model=model.eval(), task=task, evaluation=task.evaluation, evaluation_name="digits")


def _oracle(subject: Subject) -> Any:
    with torch.no_grad():
        return subject.model(torch.tensor(subject.evaluation.x)).numpy()


def test_channels_innermost_change_nothing_but_time() -> None:
    model = _Seen(build_model("cnn", signature=load_task("mnist-writers").signature, seed=0))
    x = np.random.default_rng(0).random((100, 1, 28, 28), dtype=np.float32)
    task = load_task("mnist-writers")
    subject = Subject(model=model.eval(), task=task, evaluation=task.evaluation, evaluation_name="digits")
    found = subject.logits(x)
    assert (784, 1, 28, 1) in model.strides
    with torch.no_grad():
        np.testing.assert_allclose(found, model(torch.tensor(x)).numpy(), atol=1e-6)


@pytest.mark.parametrize("how", ["view", "as_strided"])
def test_a_model_that_counts_on_how_images_lie_is_given_them_so(how: str) -> None:
    torch.manual_seed(0)
    subject = _subject(_Flat(how))
    np.testing.assert_allclose(subject.logits(subject.evaluation.x), _oracle(subject), atol=1e-6)


def test_trying_it_moves_no_random_numbers() -> None:
    class Noisy(_Flat):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.convolution(x + torch.randn_like(x)).flatten(1))

    subject = _subject(Noisy("noise"))
    x = subject.evaluation.x[:100]
    torch.manual_seed(1)
    found = subject.logits(x)
    torch.manual_seed(1)
    with torch.no_grad():
        np.testing.assert_allclose(found, subject.model(torch.tensor(x)).numpy(), atol=1e-6)


def test_a_model_without_convolutions_or_with_few_records_is_left_alone() -> None:
    for model, count in ((nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 500), (_Flat("view"), 20)):
        seen = _Seen(model)
        subject = _subject(seen)
        subject.logits(subject.evaluation.x[:count])
        assert seen.strides == {(64, 64, 8, 1)}
