"""The words in which server and nodes talk: names of records and keys in Flower messages."""

import re
from zlib import crc32

# Raised with every change that a node or a server of an earlier version would not understand.
VERSION = 4

# Records
# Slices are bytes within TASK and REPLY: each record, array and part of an array would be a request
# of its own, which on a slow link costs more than a small slice.
TASK = "task"  # what the server asks
REPLY = "reply"  # what a node answers
METRICS = "metrics"  # the scalars of a node that is prepared
ARRAYS = "arrays"  # what no codec is made for: the largest changes, Gaussians

# Keys of TASK
PROTOCOL = "protocol"  # VERSION of the server, when it asks a node to prepare
ROUND = "round"
SCALE = "scale"
WIDTHS = "widths"  # of the slice: inputs, the neurons of each hidden layer, classes
SLICE = "slice"  # its parameters, in `down-codec`
CLASS_NAMES = "class-names"
INPUTS = "inputs"  # what statistics gave the classifier; a node keeps it, so it is sent once
ANCHOR = "anchor"  # the same, and again where more statistics came
VERSIONS = "versions"  # of these two, on which the slice is to be trained; 0 for none. In METRICS,
# those that a node still has, if it has any
LEVELS = "levels"  # shares of the slice's neurons, of which each step draws one; absent for (1,)
STATISTICS = "statistics"  # which statistics are asked for; in a reply, these

PARTS = (INPUTS, ANCHOR)  # in the order of VERSIONS

# Values of STATISTICS
GRAM = "gram"
RANDOM_GRAM = "random-gram"  # of random features
CLASS_SUMS = "class-sums"
GAUSSIANS = "gaussians"

STATISTICS_QUERY = "query.statistics"  # Flower's message type: an action "statistics" of a query

# Keys of REPLY, beside SLICE
LOSS = "loss"
SECONDS = "seconds"
TRAINED = "trained"  # the `slice_id` of what it is that was trained

NAME = "name"  # of a prepared node whose owner gave it one

# Keys of METRICS
PARTITION = "partition"  # of a simulated node only
NUM_EXAMPLES = "num-examples"  # of REPLY too
CAPACITY = "capacity"  # of a node that was told one
# The fields of `boards.Device`, in their order, where rounds have a deadline; absent if unknown
DEVICE = ("memory-bytes", "multiply-adds-per-s", "down-bytes-per-s", "up-bytes-per-s", "step-s")
IMAGES_SKIPPED = "images-skipped"
UNKNOWN_CLASSES = "unknown-classes"
ORIGINAL_BYTES = "original-bytes"
RAW_BYTES = "raw-bytes"
PACKED_BYTES = "packed-bytes"
PREPARED = (
    NUM_EXAMPLES,
    IMAGES_SKIPPED,
    UNKNOWN_CLASSES,
    ORIGINAL_BYTES,
    RAW_BYTES,
    PACKED_BYTES,
)

# What a node may be called: a word in tables and logs
NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,40}")


def slice_id(data: bytes, server_round: int) -> str:
    """Tells a slice, as it travels, from those of other groups and rounds: a CRC-32 in 8 digits.

    It finds mistakes, not lies: a node that means harm knows the id of the slice that it got.
    """
    return f"{crc32(data, server_round):08x}"  # always as long, so that runs weigh the same
