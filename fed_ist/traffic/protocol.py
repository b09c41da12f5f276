"""The protocol between server and nodes: names of records and keys in Flower messages."""

import re
from zlib import crc32

# Raised with every change that a node or a server of an earlier version would not understand.
VERSION = 6

# Records
# Slices are bytes within TASK and REPLY: each record, array and chunk of an array would take a
# request of its own, which on a slow link costs more than a small slice.
TASK = "task"  # what the server asks
REPLY = "reply"  # what a node answers
METRICS = "metrics"  # the scalars of a node that is prepared
ARRAYS = "arrays"  # arrays that no codec is made for: the largest changes, Gaussians

# Keys of TASK
PROTOCOL = "protocol"  # the server's VERSION, where it asks a node to prepare
ROUND = "round"
SCALE = "scale"
WIDTHS = "widths"  # of the slice: inputs, the neurons of each hidden layer, classes
SLICE = "slice"  # its parameters, in `down-codec`; absent where they are still as DRAWN says
NEURONS = "neurons"  # instead of SLICE: which ones it has, see `slices.neuron_bits`
DRAWN = "drawn"  # beside NEURONS: one of the words below; both sides draw the same from the seed
CLASS_NAMES = "class-names"
INPUTS = "inputs"  # the inputs (see `anchors`); a node keeps them, so they are sent once
ANCHOR = "anchor"  # the anchor, sent once, and again where more statistics came
# The versions of both on which the slice is to be trained; 0 for none. In METRICS, those that a
# node still has, if it has any.
VERSIONS = "versions"
LEVELS = "levels"  # shares of the slice's neurons, of which each step draws one; absent for (1,)
STATISTICS = "statistics"  # which statistics are asked for; in a reply, the statistics

PARTS = (INPUTS, ANCHOR)  # the parts solved from statistics, in the order of VERSIONS

# Values of DRAWN
WHOLE = "whole"
SILENT = "silent"  # with the last layer at 0

# Values of STATISTICS
GRAM = "gram"
RANDOM_GRAM = "random-gram"  # of random features
CLASS_SUMS = "class-sums"
GAUSSIANS = "gaussians"

STATISTICS_QUERY = "query.statistics"  # Flower's message type: a query with action "statistics"

# Keys of REPLY, in addition to SLICE and STATISTICS
COUNTS = "counts"  # the images of each class, beside statistics of 8 or 4 bits a number
REFERENCE = "reference"  # near the mean of the embeddings, in fp16, beside a gram of 8 bits
LOSS = "loss"
SECONDS = "seconds"
TRAINED = "trained"  # the `slice_id` of the slice that was trained

NAME = "name"  # of a prepared node, if its owner gave it one

# Keys of METRICS
PARTITION = "partition"  # of a simulated node only
NUM_EXAMPLES = "num-examples"  # of REPLY too
CAPACITY = "capacity"  # of a node for which one was configured
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
    """8 digits that tell an encoded slice from those of other groups and rounds: a CRC-32.

    They reveal mistakes, not lies: a node that means harm knows the id of the slice that it got.
    """
    return f"{crc32(data, server_round):08x}"  # of fixed length: all runs send the same bytes
