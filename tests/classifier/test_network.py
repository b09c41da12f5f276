"""Logits and gradients of the classifier, written out, are those that torch finds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fed_ist.classifier.layout import NORMS, RUNNING, init_params
from fed_ist.classifier.network import backward, forward, trace
from fed_ist.training.local import LocalTraining, cross_entropy, log_softmax, train
from fed_ist.training.optimizers import OPTIMIZERS

EMBED, CLASSES = 7, 4


def head(norm="none", hidden_layers=2, hidden=9, seed=0):
    """A classifier whose norms are not the identity."""
    rng = np.random.default_rng(seed)
    params = init_params(EMBED, hidden, CLASSES, rng, hidden_layers, norm)
    for name, array in params.items():
        if name.startswith("norm"):
            array += rng.uniform(0, 0.5, array.shape).astype(np.float32)
    return params


def batch(n=12, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, EMBED)).astype(np.float32), rng.integers(0, CLASSES, n)


class Reference(nn.Module):
    """The same classifier of torch's own layers."""

    def __init__(self, params, norm, hidden_layers, scale):
        super().__init__()
        self.hidden_layers, self.scale = hidden_layers, scale
        for layer in range(1, hidden_layers + 2):
            weight = params[f"fc{layer}.weight"]
            setattr(self, f"fc{layer}", nn.Linear(weight.shape[1], weight.shape[0]))
            if norm != "none" and layer <= hidden_layers:
                kind = nn.LayerNorm if norm == "layer" else nn.BatchNorm1d
                setattr(self, f"norm{layer}", kind(weight.shape[0]))
        names = {"mean": "running_mean", "var": "running_var"}
        with torch.no_grad():
            for name, array in params.items():
                layer, _, entry = name.partition(".")
                getattr(getattr(self, layer), names.get(entry, entry)).copy_(torch.tensor(array))

    def forward(self, values):
        for layer in range(1, self.hidden_layers + 1):
            given = values * self.scale if layer > 1 else values
            found = getattr(self, f"fc{layer}")(given)
            if not hasattr(self, f"norm{layer}"):
                values = torch.relu(found)
                continue
            norm = getattr(self, f"norm{layer}")
            # torch refuses to take moments of a single example.
            norm.train(self.training and len(values) > 1)
            found = torch.relu(norm(found))
            values = found if layer == 1 else values + found
        given = values * self.scale if self.hidden_layers else values
        return getattr(self, f"fc{self.hidden_layers + 1}")(given)

    def array(self, name):
        layer, _, entry = name.partition(".")
        names = {"mean": "running_mean", "var": "running_var"}
        return getattr(getattr(self, layer), names.get(entry, entry))


CASES = {
    "norm": st.sampled_from(NORMS),
    "hidden_layers": st.integers(0, 4),
    "n": st.integers(1, 20),
    "scale": st.sampled_from([1.0, 4.0]),
    "seed": st.integers(0, 99),
}
# Ours has constants in float32, such as a norm's epsilon and a mean's 1 / n, each off by 2**-24 of
# itself at most; a value goes through no more than ten of them. Sums may cancel, so that is of the
# largest of an array.
CONSTANTS = 10 * 2.0**-24


def in_doubles(params):
    """In float32 rounding is all that is left where norms cancel: of two examples batch norm makes
    1 and -1, whatever they were. In doubles what is compared is the formula.
    """
    return {name: array.astype(np.float64) for name, array in params.items()}


def require_close(found, expected, name=""):
    assert found.dtype == expected.dtype == np.float64
    largest = max(1.0, float(np.abs(expected).max()))
    assert found == pytest.approx(expected, rel=CONSTANTS, abs=CONSTANTS * largest), name


@given(**CASES)
def test_logits_are_torchs_own(norm, hidden_layers, n, scale, seed):
    params, (x, _) = head(norm, hidden_layers, seed=seed), batch(n, seed)
    reference = Reference(params, norm, hidden_layers, scale).double().eval()
    expected = reference(torch.tensor(x).double()).detach().numpy()
    require_close(forward(in_doubles(params), x.astype(np.float64), scale), expected)


@given(**CASES)
def test_gradients_and_running_moments_are_torchs_own(norm, hidden_layers, n, scale, seed):
    given, (x, y) = head(norm, hidden_layers, seed=seed), batch(n, seed)
    reference = Reference(given, norm, hidden_layers, scale).double()
    expected_loss = functional.cross_entropy(reference(torch.tensor(x).double()), torch.tensor(y))
    expected_loss.backward()

    params = in_doubles(given)
    logits, layers = trace(params, x.astype(np.float64), scale, training=True)
    loss, of_logits = cross_entropy(logits, y)
    found = {name: np.full_like(array, np.nan) for name, array in params.items()}
    backward(params, layers, scale, of_logits, found)
    require_close(np.float64(loss), np.float64(expected_loss.item()))
    for name in params:
        if name.endswith(RUNNING):
            require_close(params[name], reference.array(name).numpy(), name)
        else:
            require_close(found[name], reference.array(name).grad.numpy(), name)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_given_in_float32_stays_in_float32(norm):
    """Doubles would take a device twice the time."""
    params, (x, y) = head(norm), batch()
    logits, layers = trace(params, x, 4.0, training=True)
    _, of_logits = cross_entropy(logits, y)
    assert {logits.dtype, of_logits.dtype} == {np.dtype(np.float32)}
    backward(params, layers, 4.0, of_logits, {n: np.empty_like(a) for n, a in params.items()})
    for layer in layers:
        kept = [layer.given, layer.found]
        if layer.normalised is not None:
            kept += [layer.normalised.values, layer.normalised.by]
        assert {array.dtype for array in kept} == {np.dtype(np.float32)}


@given(weighted=st.booleans(), seed=st.integers(0, 99), size=st.sampled_from([1, 30]))
def test_the_loss_is_torchs_own(weighted, seed, size):
    rng = np.random.default_rng(seed)
    logits = (size * rng.normal(size=(9, CLASSES))).astype(np.float32)
    labels = rng.integers(0, CLASSES, 9)
    weights = rng.uniform(0.1, 2, CLASSES).astype(np.float32) if weighted else None
    leaf = torch.tensor(logits, requires_grad=True)
    expected = functional.cross_entropy(
        leaf, torch.tensor(labels), None if weights is None else torch.tensor(weights)
    )
    expected.backward()
    loss, gradient = cross_entropy(logits, labels, weights)
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert gradient == pytest.approx(leaf.grad.numpy(), abs=1e-6)
    expected_logs = torch.log_softmax(torch.tensor(logits), dim=1).numpy()
    assert log_softmax(logits) == pytest.approx(expected_logs, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("size", [5, 70_000], ids=["small", "in-pieces"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_those_of_torchs_optimisers(name, size):
    rng = np.random.default_rng(0)
    params = rng.normal(size=size).astype(np.float32)
    leaf = torch.tensor(params, requires_grad=True)
    reference = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]([leaf], lr=0.01)
    step, before = OPTIMIZERS[name](params), params.copy()
    for _ in range(50):
        gradient = rng.normal(size=size).astype(np.float32)
        leaf.grad = torch.tensor(gradient)
        reference.step()
        step(gradient, 0.01)
    assert params == pytest.approx(leaf.detach().numpy(), abs=1e-5)
    assert np.abs(params - before).max() > 0.01


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_round_of_training_is_torchs_within_rounding(norm, optimizer):
    """The same batches in the same order; the reference is an ordinary torch loop."""
    params, (x, y) = head(norm), batch(90)
    how = LocalTraining(3, 0, 32, optimizer, 0.01)
    trained, loss = train(params, lambda _: (x, y), how, 2.0, np.random.default_rng(5))

    reference = Reference(params, norm, 2, 2.0)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    optim, rng, losses = kind(reference.parameters(), lr=0.01), np.random.default_rng(5), []
    for _ in range(3):
        order = rng.permutation(90)
        for start in (0, 32, 64):
            rows = order[start : start + 32]
            error = functional.cross_entropy(
                reference(torch.tensor(x[rows])), torch.tensor(y[rows])
            )
            optim.zero_grad()
            error.backward()
            optim.step()
            losses.append(error.item())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    for name in params:
        assert trained[name] == pytest.approx(reference.array(name).detach().numpy(), abs=2e-5)
        assert np.abs(trained[name] - params[name]).max() > 1e-3, name


@pytest.mark.parametrize("proximal", [0.0, 1.0])
def test_the_proximal_term_pulls_towards_the_slice_as_it_came(proximal):
    """After one step of SGD from elsewhere the term's gradient would be 0; after two it is not."""
    params, (x, y) = head(), batch(32)
    how = LocalTraining(2, 0, 32, "sgd", 0.1, proximal=proximal)
    trained, _ = train(params, lambda _: (x, y), how, 1.0, np.random.default_rng(0))

    reference = Reference(params, "none", 2, 1.0)
    start = [parameter.detach().clone() for parameter in reference.parameters()]
    optim = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(2):
        error = functional.cross_entropy(reference(torch.tensor(x)), torch.tensor(y))
        for now, then in zip(reference.parameters(), start, strict=True):
            error = error + proximal / 2 * (now - then).square().sum()
        optim.zero_grad()
        error.backward()
        optim.step()
    for name in params:
        assert trained[name] == pytest.approx(reference.array(name).detach().numpy(), abs=1e-5)
