"""The words in which server and nodes talk: names of records and keys in Flower messages."""

# Records
ARRAYS = "arrays"  # the slice, both ways
TASK = "task"  # what the server asks
METRICS = "metrics"  # the scalars that a node answers with

# Keys of TASK
ROUND = "round"
SCALE = "scale"
CLASS_NAMES = "class-names"

# Keys of METRICS
PARTITION = "partition"  # of a simulated node only
NUM_EXAMPLES = "num-examples"
LOSS = "loss"
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
