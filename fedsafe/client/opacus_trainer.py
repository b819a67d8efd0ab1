"""Per-example gradients by Opacus's hooks: the oracle, and the way for modules that nothing else can differentiate."""

import copy
import warnings

import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPLSTM
from torch import Tensor, nn

from fedsafe.client.batches import Batch, examples
from fedsafe.client.objectives import Objective
from fedsafe.client.one_by_one import OneByOneTrainer
from fedsafe.client.trainer import LocalTraining
from fedsafe.errors import ModelError


class OpacusTrainer(OneByOneTrainer):
    """The :class:`~fedsafe.client.trainer.Trainer` for any module that Opacus can differentiate per example.

    Arguments as for :class:`~fedsafe.client.one_by_one.OneByOneTrainer`.

    Raises:
        ModelError: Opacus cannot take the module either.
    """

    name = "opacus"

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch,
        training: LocalTraining,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(module, objective, data, training, device=device)
        try:
            with torch.random.fork_rng(devices=[]):  # Opacus's layers draw weights, which are replaced
                model = _with_open_recurrences(copy.deepcopy(module)).to(self.device)
            self._model = GradSampleModule(model, loss_reduction="sum", strict=True)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(f"the model cannot be trained privately: {error}") from error
        self._model.train()
        named = dict(model.named_parameters())
        self._trainable = [named[name] for name in self.layout.names]

    def gradients(self, vector: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :class:`~fedsafe.client.one_by_one.OneByOneTrainer`."""
        nn.utils.vector_to_parameters(vector, self._trainable)
        self._model.zero_grad(set_to_none=True)
        count = examples(batch)
        losses = self.objective(self._model, batch)
        with warnings.catch_warnings():
            # Inputs need no gradient, and Opacus's hooks do without one.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses.sum().backward()  # type: ignore[no-untyped-call]
        samples = [p.grad_sample if hasattr(p, "grad_sample") else None for p in self._trainable]
        wrong = [tuple(g.shape) for g in samples if g is not None and g.shape[0] != count]
        if wrong:
            raise ModelError(
                f"a layer saw {wrong[0][0]} examples in a batch of {count}, so the gradient of one record is not "
                "known: keep the first dimension of every input as it is"
            )
        gradients = torch.cat(
            [
                vector.new_zeros(count, p.numel()) if g is None else g.flatten(1)
                for p, g in zip(self._trainable, samples, strict=True)
            ],
            dim=1,
        )
        return gradients, losses.detach()


def _with_open_recurrences(module: nn.Module) -> nn.Module:
    """The same module with every ``nn.LSTM`` in Opacus's form, which has the same parameters and names."""
    if type(module) is nn.LSTM:
        opened = DPLSTM(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            bias=module.bias,
            batch_first=module.batch_first,
            dropout=module.dropout,
            bidirectional=module.bidirectional,
            proj_size=module.proj_size,
        )
        opened.load_state_dict(module.state_dict())
        return opened.to(module.weight_ih_l0.dtype)  # type: ignore[no-any-return]
    for name, child in list(module.named_children()):
        setattr(module, name, _with_open_recurrences(child))
    return module
