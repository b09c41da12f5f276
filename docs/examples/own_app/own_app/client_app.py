"""The ClientApp: as with FedAvg, but for the width that comes with each message."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from own_app.task import N_EXAMPLES, Net, load_data
from own_app.task import test as test_fn
from own_app.task import train as train_fn

app = ClientApp()


def net_of(message: Message) -> Net:
    """The model in a message, of the width that the config names."""
    net = Net(hidden=int(message.content["config"]["hidden"]))
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train what came on this node's images."""
    net = net_of(message)
    loss = train_fn(net, load_data(int(context.node_config["partition-id"])), lr=0.001)
    metrics = MetricRecord({"train-loss": loss, "num-examples": N_EXAMPLES})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The accuracy of the whole model on this node's images."""
    accuracy = test_fn(net_of(message), load_data(int(context.node_config["partition-id"])))
    metrics = MetricRecord({"accuracy": accuracy, "num-examples": N_EXAMPLES})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
