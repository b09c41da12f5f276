"""A model and its training: nothing here knows of federated learning."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

N_CLASSES, N_PIXELS, N_EXAMPLES = 10, 28 * 28, 400


class Net(nn.Module):
    """A network with one hidden layer of any width."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(N_PIXELS, hidden)
        self.fc2 = nn.Linear(hidden, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(images.flatten(1))))


def load_data(partition_id: int) -> DataLoader:
    """Images of one node; here drawn: a pattern for each class, and noise."""
    patterns = torch.randn(N_CLASSES, N_PIXELS, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + partition_id)
    labels = torch.randint(N_CLASSES, (N_EXAMPLES,), generator=generator)
    noise = 4 * torch.randn(N_EXAMPLES, N_PIXELS, generator=generator)
    return DataLoader(TensorDataset(patterns[labels] + noise, labels), batch_size=32)


def train(net: nn.Module, data: DataLoader, lr: float) -> float:
    """One epoch; the mean loss."""
    optimizer, total = torch.optim.Adam(net.parameters(), lr=lr), 0.0
    for images, labels in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(data)


def test(net: nn.Module, data: DataLoader) -> float:
    """The accuracy."""
    with torch.no_grad():
        right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in data)
    return right / N_EXAMPLES
