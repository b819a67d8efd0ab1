"""A model that mixes examples is refused before any record is touched; what has no rule goes to Opacus."""

import numpy as np
import pytest
import torch
from stacked_models import CASES
from torch import nn
from training_problems import make_jobs

from fedsafe.client import LocalTraining, build_objective, build_trainer, choose_trainer
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.probe import probe_data
from fedsafe.data import Signature
from fedsafe.errors import ModelError


def table(outputs=2, classes=2):
    """Six features, so many outputs."""
    return Signature(kind="multiclass", inputs=(6,), outputs=(outputs,), classes=classes)


def chosen(model, classes=2):
    """The trainer for a model, whatever number of outputs it has."""
    outputs = model.eval()(torch.zeros(4, 6)).shape[1]
    return choose_trainer(model, cross_entropy, table(outputs, classes))


class Planted(nn.Module):
    """A model for a table or for images, with something before and after its layers."""

    def __init__(self, signature, before=None, after=None):
        super().__init__()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        if len(signature.inputs) == 3:
            layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)]
        else:
            layers = [nn.Linear(6, 2)]
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.after(self.body(self.before(x)))


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return x


class HiddenMixture(nn.Module):
    """Mixes before a head that starts at zero: invisible at the initial weights."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LazyLinear(5), nn.Linear(5, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        hidden = torch.relu(self.body(x.flatten(1)))
        return self.head(hidden - hidden.mean(0))


def hidden_mixture(signature):
    model = HiddenMixture()
    model(torch.zeros(2, *signature.inputs))
    return model


def batch_norm(signature):
    images = len(signature.inputs) == 3
    return Planted(signature, before=nn.BatchNorm2d(2) if images else nn.BatchNorm1d(6))


def does(before=None, after=None):
    return lambda signature: Planted(signature, before and Does(before), after and Does(after))


def contrastive(model, batch):
    x, _ = batch
    z = model(x)
    return nn.functional.cross_entropy(z @ z.T, torch.arange(len(x)), reduction="none")


MIXES = "changing one example changes the loss of another"
MIXING = {
    "batch norm": (batch_norm, r"layer before \(BatchNorm[12]d\) mixes"),
    "functional batch norm": (does(lambda x: nn.functional.batch_norm(x, None, None, training=True)), MIXES),
    "centred": (does(lambda x: x - x.mean(0)), MIXES),
    "large batches": (does(lambda x: x if len(x) < 16 else x - x.mean(0)), MIXES),
    "softmax over the batch": (does(after=lambda x: x.softmax(0)), MIXES),
    "zero head": (hidden_mixture, MIXES),
    "contrastive objective": (Planted, MIXES),
    "moving buffer": (lambda signature: Planted(signature, Counts()), "buffer before.seen moves"),
}
TWO_CLASSES = {
    "table": table(),
    "images": Signature(kind="multiclass", inputs=(2, 5, 5), outputs=(2,), classes=2),
}


@pytest.mark.parametrize("inputs", TWO_CLASSES)
@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_refused_with_the_remedy(name, inputs):
    make, message = MIXING[name]
    signature = TWO_CLASSES[inputs]
    objective = contrastive if "objective" in name else cross_entropy
    with pytest.raises(ModelError, match=rf"{message}.*GroupNorm.*objective compare no two examples"):
        choose_trainer(make(signature), objective, signature)


@pytest.mark.parametrize("inputs", TWO_CLASSES)
def test_what_the_mixing_is_planted_in_is_accepted(inputs):
    assert choose_trainer(Planted(TWO_CLASSES[inputs]), cross_entropy, TWO_CLASSES[inputs]) == "stacked"


class Grows(nn.Module):
    """Has a state that is no buffer."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.5), Grows, lambda: Does(lambda x: x.mul_(2.0))])
def test_a_forward_that_gives_other_values_when_it_is_run_again_is_refused(make):
    with pytest.raises(
        ModelError, match=r"when it is run again \(dropout, or .* its input or its own state\): set"
    ):
        choose_trainer(Planted(table(), before=make()), cross_entropy, table())


def test_losses_that_are_not_finite_are_called_so():
    def rooted(model, batch):
        x, _ = batch
        return model(x)[:, 0].sqrt()

    with pytest.raises(ModelError, match=r"losses that are not finite \(\d of 5 random examples give nan\)"):
        choose_trainer(nn.Linear(6, 2), rooted, table())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(6, 2).double(), r"weight is of type torch.float64.*call \.float\(\)"),
        (nn.Linear(6, 2).half(), r"weight is of type torch.float16.*call \.float\(\)"),
        (nn.Sequential(nn.LazyLinear(2)), r"0.weight has no shape yet.*run the model once on one record"),
    ],
)
def test_other_parameters_are_refused_with_the_remedy(model, message):
    with pytest.raises(ModelError, match=message):
        choose_trainer(model, cross_entropy, table())


def leaves_when(condition):
    def forward(x):
        if condition(x):
            raise SystemExit(3)
        return x

    return forward


@pytest.mark.parametrize("condition", [lambda x: True, lambda x: len(x) > 10])
def test_a_model_that_leaves_the_process_says_so(condition):
    model = Planted(table(), before=Does(leaves_when(condition)))
    with pytest.raises(ModelError, match=r"cannot run on .*SystemExit: 3"):
        choose_trainer(model, cross_entropy, table())


class SecondDimension(nn.Module):
    """Shows its layers the batch as one example."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(x.unsqueeze(0)))[0]


class ReadsTheBatch(nn.Module):
    """Its outputs depend on how many examples there are, or do from some number on."""

    def __init__(self, from_=0):
        super().__init__()
        self.head, self.from_ = nn.Linear(6, 2), from_

    def forward(self, x):
        z = self.head(x)
        if self.from_:
            return z - z.mean(0) if len(x) > self.from_ else z
        return z * (1.0 + 1e-3 * len(x))


@pytest.mark.parametrize("model", [ReadsTheBatch(), ReadsTheBatch(50)])
def test_a_model_that_reads_how_large_the_batch_is_is_refused(model):
    with pytest.raises(ModelError, match=r"in a batch of|changing one example"):
        chosen(model)


def penalised(how):
    def objective(model, batch):
        loss = cross_entropy(model, batch)
        weights = list(model.parameters()) if how == "parameters" else [getattr(model, "weight", None)]
        return loss + sum(1e-4 * w.pow(2).sum() for w in weights if w is not None)

    return objective


@pytest.mark.parametrize(("how", "trainer"), [("parameters", "vmap"), ("getattr", "stacked")])
def test_a_penalty_on_the_parameters_is_not_lost(how, trainer):
    signature, objective = table(), penalised(how)
    model = nn.Linear(6, 2)
    assert choose_trainer(model, objective, signature) == trainer
    x, y = probe_data(signature, 8)
    results = []
    for clip in (1e-6, 1e6):
        way = LocalTraining(learning_rate=1.0, steps=1, rate=1.0, clip=clip, noise=0.0)
        built = build_trainer(trainer, model, objective, x, y, way)
        oracle = build_trainer("vmap", model, objective, x, y, way)
        start = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        parts = [np.arange(8)]
        results.append([one.train(start, make_jobs(parts, [0])) - start for one in (built, oracle)])
    for found, expected in results:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


class LastDimension(nn.Module):
    """Shows its layer the examples along the last dimension."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(6, 2, 1)

    def forward(self, x):
        return self.mix(x.t().unsqueeze(0))[0].t()


class Packs(nn.Module):
    """Sequences of unequal length in one packed tensor, which only Opacus takes apart."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        lengths = torch.full((len(x),), 2)
        packed = nn.utils.rnn.pack_padded_sequence(x.view(-1, 2, 3), lengths, batch_first=True)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0][:, -1])


@pytest.mark.parametrize("name", CASES)
def test_every_model_that_has_rules_is_stacked(name):
    """Each has passed the comparison with a loop over examples that the choice rests on."""
    case = CASES[name]
    objective = build_objective(None, case.signature.kind)
    assert choose_trainer(case.make(), objective, case.signature) == "stacked"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Linear(6, 2), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.0), nn.ReLU(), nn.Linear(4, 1)), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "stacked"),
        (SecondDimension, "stacked"),
        (lambda: LastDimension(), "vmap"),
        (Packs, "opacus"),
    ],
)
def test_the_trainer_follows_from_the_model(make, expected):
    assert chosen(make()) == expected


def test_the_probe_leaves_the_model_and_the_generators_alone():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    chosen(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_for_other_inputs_says_so():
    with pytest.raises(ModelError, match="inputs of shape"):
        choose_trainer(nn.Linear(5, 2), cross_entropy, table())


def test_a_model_without_parameters_says_so():
    with pytest.raises(ModelError, match="no trainable parameter"):
        choose_trainer(nn.Identity(), cross_entropy, table(6, 6))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_with_other_outputs_than_the_task_needs_says_so(outputs):
    with pytest.raises(ModelError, match="the task needs"):
        choose_trainer(nn.Linear(6, 2), cross_entropy, table(outputs))


def test_a_model_that_raises_says_what():
    class Broken(nn.Linear):
        def forward(self, x):
            raise KeyError("weights of yesterday")

    with pytest.raises(ModelError, match="KeyError: 'weights of yesterday'"):
        choose_trainer(Broken(6, 2), cross_entropy, table())


def test_weights_that_are_not_finite_are_not_called_dropout():
    model = nn.Linear(6, 2)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        choose_trainer(model, cross_entropy, table())
