"""The ServerApp: FedAvg's, with another strategy."""

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from own_app.task import Net
from strategies import IstStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train in rounds, and keep the whole model."""
    hidden = int(context.run_config["hidden"])
    torch.manual_seed(0)
    strategy = IstStrategy(widths={"hidden": hidden}, dealing="rotating", fraction_evaluate=0.5)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net(hidden).state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    torch.save(result.arrays.to_torch_state_dict(), "own_app.pt")
