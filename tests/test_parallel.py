"""Two processes with half a batch each learn what one process learns from the whole batch."""

import pytest
import torch
from torch import nn

from ami import parallel
from two_processes import both


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _loss(model, batch):
    """Part of it belongs to each row; part is far from linear in a mean over the whole batch, like a regulariser's."""
    code = model(batch)
    spread = parallel.mean(code.square().mean(0)) - parallel.mean(code.mean(0)).square()
    return (code[:, 0] - batch[:, 0]).square().mean() + (spread.sqrt() - 1).square().sum()


def _batch():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def _learn(batch):
    model = _model()
    loss = _loss(model, batch)
    loss.backward()
    parallel.average_gradients(model)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": parallel.mean(loss.detach()), **gradients}


def on_each(rank: int) -> dict[str, torch.Tensor]:
    """All that is asked of two processes, in one start of them."""
    learned = _learn(_batch().chunk(2)[rank])

    # Only rank 1 uses its second head, and nobody the third; the frozen one stays without a gradient.
    heads = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(4))
    heads[3].requires_grad_(False)
    for head in heads[: 1 + rank]:
        head(torch.ones(1, 1)).sum().backward()
    parallel.average_gradients(heads)
    assert heads[3].weight.grad is None

    untouched = torch.tensor([float(rank)])
    mean = parallel.mean(untouched)
    facts = {"size": parallel.size(), "rank": parallel.rank(), "mean": mean.item(), "input": untouched.item()}
    return {
        **learned,
        "heads": torch.stack([head.weight.grad.squeeze() for head in heads[:3]]),
        **{name: torch.tensor(float(fact)) for name, fact in facts.items()},
    }


@pytest.fixture(scope="module")
def two():
    return both(on_each)


def test_two_processes_learn_what_one_does(two):
    one = _learn(_batch())
    for name, value in one.items():
        for rank in two:
            torch.testing.assert_close(rank[name], value, rtol=1e-5, atol=1e-7)
        assert torch.equal(two[0][name], two[1][name]), f"the ranks drift apart in {name}"


def test_the_loss_is_of_the_whole_batch_and_not_of_its_halves():
    # Otherwise the test above would prove nothing: halves by themselves give another gradient.
    halves = [_learn(half)["0.weight"] for half in _batch().chunk(2)]
    assert (torch.stack(halves).mean(0) - _learn(_batch())["0.weight"]).abs().max() > 1e-2


def test_a_head_that_one_rank_did_not_use_counts_as_zero(two):
    for rank in two:
        assert rank["heads"].tolist() == [1.0, 0.5, 0.0]


def test_ranks_know_themselves(two):
    for number, rank in enumerate(two):
        assert (rank["size"], rank["rank"]) == (2, number)
        assert rank["mean"] == 0.5
        assert rank["input"] == number, "mean must not write to its input"


def test_one_process_is_the_identity():
    tensor, model = torch.ones(3), nn.Linear(2, 2)
    parallel.start(torch.device("cpu"))
    assert (parallel.size(), parallel.rank()) == (1, 0)
    assert parallel.mean(tensor) is tensor
    parallel.average_gradients(model)
    assert model.weight.grad is None
