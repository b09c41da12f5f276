"""The empty Flower app of `fed-ist bench start`: all nodes answer one message, and it ends."""

import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fed_ist.errors import InputError

N_NODES = 2

node = ClientApp()
app = ServerApp()


@node.train()
def answer(message: Message, context: Context) -> Message:
    """An empty answer."""
    return Message(RecordDict(), reply_to=message)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Wait until all nodes have answered, then make the folder `name` in `results-dir`."""
    nodes: list[int] = []
    while len(nodes) < N_NODES:
        time.sleep(0.05)
        nodes = list(grid.get_node_ids())
    asked = [Message(RecordDict(), dst_node_id=name, message_type="train") for name in nodes]
    replies = list(grid.send_and_receive(asked))
    if any(reply.has_error() for reply in replies) or len(replies) < N_NODES:
        raise InputError("A node has not answered.")
    Path(str(context.run_config["results-dir"]), str(context.run_config["name"])).mkdir()
