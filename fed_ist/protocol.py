"""The words in which server and nodes talk: names of records and keys in Flower messages."""

# Records
ARRAYS = "arrays"  # the slice, both ways; statistics
FIXED = "fixed"  # what statistics gave the classifier; a node keeps it, so it is sent once
TASK = "task"  # what the server asks
METRICS = "metrics"  # the scalars that a node answers with

# Keys of TASK
ROUND = "round"
SCALE = "scale"
CLASS_NAMES = "class-names"
FIXED_VERSION = "fixed-version"  # which of these the slice is to be trained on; absent for none
LEVELS = "levels"  # shares of the slice's neurons, of which each step draws one; absent for (1,)
UPLOAD = "upload"  # how the update comes back; absent for whole parameters
STATISTICS = "statistics"  # which statistics are asked for

# Values of UPLOAD
TOP_K = "top-k"
QUANTISED = "quantised"

# Values of STATISTICS
GRAM = "gram"
RANDOM_GRAM = "random-gram"  # of random features
CLASS_SUMS = "class-sums"
GAUSSIANS = "gaussians"

STATISTICS_QUERY = "query.statistics"  # Flower's message type: an action "statistics" of a query

# Keys of METRICS
PARTITION = "partition"  # of a simulated node only
NUM_EXAMPLES = "num-examples"
LOSS = "loss"
SECONDS = "seconds"
CAPACITY = "capacity"  # of a node that was told one
# The fields of `capacity.Device`, in their order, where rounds have a deadline; absent if unknown
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
