"""How much a classifier can tell from frozen embeddings: a linear one, and the project's own.

The functions return test accuracies, and work on arrays alone. `passes` are the embeddings of the
same training images in successive passes over them, each float32 (n, d): one where a mask is drawn
once, several where it is drawn anew. `labels` are int64 (n,), the same for each pass. `test` is
float32 (m, d) and `test_labels` int64 (m,).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import init_params
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.training.local import LocalTraining, evaluate, train

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

# Inverse strengths of the linear probe's L2 penalty.
C_VALUES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_ITERATIONS = 1000
HELD_OUT = 0.15  # the share of the training images by which C is chosen

HIDDEN_DIM = 1024
MLP_TRAINING = LocalTraining(
    local_epochs=20, local_steps=0, batch_size=64, optimizer="adam", learning_rate=1e-3
)


def require_scikit_learn() -> None:
    """Raise `InputError` where scikit-learn, which the linear probe uses, is not installed."""
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "fed-ist probe needs scikit-learn, which is not installed. "
            "Install it with: pip install 'fed-ist[probe]'"
        ) from None


def linear_probe(
    passes: Sequence[Floats], labels: Labels, test: Floats, test_labels: Labels, seed: int
) -> tuple[float, float]:
    """(test accuracy in [0, 1], C) of a logistic regression on standardised embeddings.

    passes: each float32 (n, d), all stacked. labels: int64 (n,). test: float32 (m, d). test_labels:
    int64 (m,). C is the best of `C_VALUES` on a stratified 15% of the training images, drawn from
    `seed`; then all training images are fitted with it.
    """
    c = choose_c(passes, labels, seed)
    model = _fitted(np.concatenate(passes), np.tile(labels, len(passes)), c)
    return float((model.predict(test) == test_labels).mean()), c


def choose_c(passes: Sequence[Floats], labels: Labels, seed: int) -> float:
    """The C with the best accuracy on images held out; of equal ones the strongest penalty.

    passes: each float32 (n, d). labels: int64 (n,). An image is held out of all passes: otherwise
    the same image under another mask would give its label away.
    """
    rows = _hold_out(labels, generator(seed, "probe-hold-out"))
    if len(rows["test"]) == 0:  # one image a class: nothing to choose by
        return C_VALUES[len(C_VALUES) // 2]
    fit = np.concatenate([values[rows["train"]] for values in passes])
    held_out = np.concatenate([values[rows["test"]] for values in passes])
    fit_labels = np.tile(labels[rows["train"]], len(passes))
    held_out_labels = np.tile(labels[rows["test"]], len(passes))
    accuracies = [
        (_fitted(fit, fit_labels, c).predict(held_out) == held_out_labels).mean() for c in C_VALUES
    ]
    return C_VALUES[int(np.argmax(accuracies))]


def _hold_out(labels: Labels, rng: np.random.Generator) -> dict[str, Labels]:
    """Random indices, with the same share of each class, and at least one, in "test".

    A class always keeps an image to train on.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: min(len(rows) - 1, max(1, round(len(rows) * HELD_OUT)))]] = True
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _fitted(values: Floats, labels: Labels, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=c, solver="lbfgs", max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), regression).fit(values, labels)


def mlp_probe(
    passes: Sequence[Floats],
    labels: Labels,
    test: Floats,
    test_labels: Labels,
    num_classes: int,
    seed: int,
) -> float:
    """Test accuracy in [0, 1] of the project's own classifier, trained whole and in one place.

    passes: each float32 (n, d), used in turn. labels: int64 (n,). test: float32 (m, d).
    test_labels: int64 (m,).
    """
    rng = generator(seed, "probe-init")
    params = init_params(test.shape[1], HIDDEN_DIM, num_classes, rng)
    trained, _ = train(
        params,
        lambda i: (passes[i % len(passes)], labels),
        MLP_TRAINING,
        scale=1.0,
        rng=generator(seed, "probe-train"),
    )
    return evaluate(trained, test, test_labels)[0]


def mean_and_deviation(accuracies: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single number is nan."""
    deviation = np.std(accuracies, ddof=1) if len(accuracies) > 1 else np.nan
    return float(np.mean(accuracies)), float(deviation)
