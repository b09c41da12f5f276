"""What local differential privacy costs, by the epsilon of a round: AID, 8 clients."""

from collections.abc import Mapping

from fed_ist.config.toml import Value
from fed_ist.training.privacy import epsilon_after, noise_deviation
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.compare import USUAL

CLIENTS, ROUNDS = 8, 10
COMMON: dict[str, Value] = {**USUAL, "num-rounds": ROUNDS, "hidden-dim": 256}
CLIP_NORM, DELTA = 1.0, 1e-5
EPSILONS = (None, 1e5, 1e4, 1e3, 1e2, 1e1)
METHODS: dict[str, dict[str, Value]] = {
    "FedAvg": {"strategy": "fedavg"},
    "IST": {"strategy": "ist", "groups": CLIENTS},
    "IST with an anchor": {"strategy": "ist", "groups": CLIENTS, "anchor": "ridge"},
}


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every method without noise and with every epsilon."""
    cases = []
    for method, how in METHODS.items():
        for epsilon in EPSILONS:
            private: dict[str, Value] = {}
            if epsilon is not None:
                private = {"dp-clip-norm": CLIP_NORM, "dp-epsilon": epsilon, "dp-delta": DELTA}
            config = configure(base, how, private, {})
            cases.append(Case("aid", "iid", CLIENTS, f"{method} | {epsilon}", config))
    return cases


def labels_of(epsilon: float | None) -> tuple[str, ...]:
    """The names of a row: the epsilon of a round, that of all rounds, the noise's deviation."""
    if epsilon is None:
        return "no privacy", "", "0"
    total, sigma = epsilon_after(ROUNDS, epsilon, DELTA), noise_deviation(CLIP_NORM, epsilon, DELTA)
    return f"{epsilon:,.0f}", f"{total:,.0f}", f"{sigma:.3g}"


EXPERIMENT = variants.Experiment(
    title="What local differential privacy costs",
    notes=(
        f"AID, {CLIENTS} clients, IID, {ROUNDS} rounds of 3 local epochs, one hidden layer of "
        f"{COMMON['hidden-dim']}, one seed; final test accuracy. Each client clips what it has "
        f"learnt to a length of {CLIP_NORM:g} and adds noise of deviation sigma to every number: "
        f"(epsilon, {DELTA:g}) privacy for all its images together. The anchor's statistics have "
        "no noise here.",
    ),
    stages=variants.on_aid(COMMON, list_cases),
    tables=[
        tables.Table(
            labels=("epsilon of a round", f"of {ROUNDS} rounds", "sigma"),
            columns={method: tables.final(i) for i, method in enumerate(METHODS)},
            rows={
                labels_of(epsilon): tuple(
                    tables.Key("aid", "iid", CLIENTS, f"{method} | {epsilon}") for method in METHODS
                )
                for epsilon in EPSILONS
            },
        )
    ],
    same=USUAL,
)
