"""The Flower ServerApp: it makes one run of data, encoder, strategy, ledger and results."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from logging import ERROR, INFO, WARNING
from typing import Any, NoReturn

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.exit import ExitCode, flwr_exit
from flwr.superlink.grid import InMemoryGrid
from threadpoolctl import threadpool_limits

from fed_ist.classifier.layout import Params
from fed_ist.config.derive import count_features, encoder_spec, mask_spec, open_run_data, reading
from fed_ist.config.parsing import parse_config, require_same_run
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value
from fed_ist.datasets.data_set import DataSet
from fed_ist.datasets.inspection import Inspection, inspect
from fed_ist.encoder.embeddings import Embeddings, embed
from fed_ist.encoder.known import AnyEncoder, open_encoder
from fed_ist.errors import InputError, file_trouble
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import cache_dir, server_results_dir
from fed_ist.images.source import ImageSource
from fed_ist.printable import guard_log
from fed_ist.reports.accuracy_figure import draw_accuracy
from fed_ist.reports.kept_images import draw_kept
from fed_ist.reports.run import write_run_report
from fed_ist.runs.alive import forget_alive, mark_alive
from fed_ist.runs.checkpoint import Checkpoint, remove_checkpoint, write_checkpoint
from fed_ist.runs.confusion import confusion_of
from fed_ist.runs.folder import (
    FIGURE,
    KEPT,
    NAME_TAKEN_CODE,
    REASON,
    TRACEBACK,
    Model,
    NameTakenError,
    Round,
    RunFolder,
)
from fed_ist.runs.reading import Resumable, read_resumable
from fed_ist.runs.seals import LEDGER, write_told
from fed_ist.runs.summary import Course, summarise
from fed_ist.traffic.ledger import Ledger
from fed_ist.training.local import evaluate, predict
from fed_ist.training.privacy import epsilon_after
from fed_ist.words import readable_bytes
from strategies import create_strategy
from strategies.federated import FederatedStrategy

app = ServerApp()
guard_log("flwr")  # names of nodes and files are in it, which a terminal must not obey
NETWORK = (ConnectionError, TimeoutError)  # OSErrors that are not about a file
REFUSED = 2  # the exit code of bad input


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's entry: make the run that the run config describes."""
    try:
        is_simulated = isinstance(grid, InMemoryGrid)
        conduct(context.run_config, lambda _: grid, is_simulated=is_simulated)
    except SystemExit as end:
        # Flower does not expect SystemExit in a process of its own: it would lose the log's last
        # lines, and only notice after a minute. In a simulation, this is a thread of Flower's.
        is_refused = end.code in (REFUSED, NAME_TAKEN_CODE)
        if is_refused and threading.current_thread() is threading.main_thread():
            flwr_exit(ExitCode.SUCCESS)  # the other codes say that something broke
        raise


def conduct(
    settings: Mapping[str, Value],
    open_grid: Callable[[RunConfig], Grid],
    *,
    is_simulated: bool,
) -> None:
    """Make the run that the run config describes, on the nodes of a grid.

    open_grid: the grid for these settings. is_simulated: whether nodes share the training images;
    otherwise nodes have images of their own, and all of the server's are for the test. Raises
    `SystemExit` where the run cannot be made. Whatever ends the run, error.txt in its folder, if it
    has one, then tells the reason; unless that is bad input, traceback.txt has the traceback.
    """
    folder: RunFolder | None = None
    try:
        config = parse_config(settings)
        data = open_run_data(config, is_simulated=is_simulated)
        inspection = inspect(data, reading(config))
        for line in () if is_simulated else inspection.first_lines():  # the command says it
            log(INFO, "%s", line)
        encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
        if encoder.note:
            log(WARNING, "%s", encoder.note)
        folder, resumed = open_run_folder(config)
        if resumed is not None:
            require_same_images(resumed.images, inspection)
        mark_alive(folder.path)
        folder.write_images(inspection.to_json())
        # What is evaluated or solved here goes into files, which must be the same on any number of
        # cores (see `clients.mods.in_one_thread`).
        with threadpool_limits(1, user_api="blas"):
            run(open_grid(config), config, encoder, data, folder, resumed)
    except NameTakenError as error:
        fail(None, str(error), NAME_TAKEN_CODE)
    except InputError as error:
        fail(folder, str(error))
    except BaseException as error:
        if isinstance(error, OSError) and not isinstance(error, NETWORK):
            fail(
                folder,
                f"The server cannot go on: {file_trouble(error)}. Free some space, or mend what it "
                "is; then go on after the last whole round with fed-ist run --resume.",
            )
        tell(folder, reason_of(error))
        write_ending(folder, TRACEBACK, traceback.format_exc())
        raise
    finally:
        if folder is not None:
            forget_alive(folder.path)


def require_same_images(began: Mapping[str, Any], inspection: Inspection) -> None:
    """Raise `InputError` where a resumed run has other classes; warn where its images differ.

    The classifier's outputs belong to the classes with which the run began. began: what images.json
    said then; empty if there was none.
    """
    if not began:
        return
    before, now = list(began["counts"]), list(inspection.counts)
    if before != now:
        unlike = sorted(set(before) ^ set(now))
        raise InputError(
            f"The run began with other classes than there are now ({', '.join(unlike[:5])}). "
            "Restore the images, or start another run."
        )
    if began["counts"] != inspection.to_json()["counts"]:
        log(WARNING, "There are other images than when the run began: it goes on with these")


def fail(folder: RunFolder | None, reason: str, code: int = REFUSED) -> NoReturn:
    """End the run with a reason, which `fed-ist run` reads: Flower does not pass exit codes on."""
    tell(folder, reason)
    raise SystemExit(code) from None


def reason_of(error: BaseException) -> str:
    """The reason of a run that was not ended by its input or its files."""
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    match error:
        case KeyboardInterrupt():
            return "The run was interrupted."
        case SystemExit():
            return "The run was told to end: by a signal, or because its SuperLink ended."
        case ConnectionError() | TimeoutError():
            return f"The server's app lost its SuperLink ({what})."
        case MemoryError():
            return "The server has too little memory."
        case _:
            return f"The run ended by an error that nobody foresaw ({what}); see {TRACEBACK}."


def tell(folder: RunFolder | None, reason: str) -> None:
    """Log why the run ends, and write it to the run's folder."""
    log(ERROR, "%s", reason)
    write_ending(folder, REASON, f"{reason}\n")


def write_ending(folder: RunFolder | None, name: str, text: str) -> None:
    """Write a file on how the run ended, if it has a folder; on a full disk, the log must do."""
    if folder is not None:
        with suppress(OSError):
            write_told(folder.path, name, text)


def open_run_folder(config: RunConfig) -> tuple[RunFolder, Resumable | None]:
    """A new folder for the run, or the folder of the run that is resumed with what it had."""
    parent = server_results_dir(config.results_dir)
    if not config.resume:
        name = config.name or f"{datetime.now():%Y%m%d-%H%M%S}-{config.strategy}"
        return RunFolder(parent, name), None
    resumed = read_resumable(parent / config.name)
    require_same_run(config, parse_config(resumed.settings))
    log(INFO, "Resumed after round %d of %d", resumed.checkpoint.round, config.num_rounds)
    return RunFolder.reopen(resumed.path, resumed.checkpoint.seals, resumed.tables), resumed


def run(
    grid: Grid,
    config: RunConfig,
    encoder: AnyEncoder,
    data: DataSet,
    folder: RunFolder,
    resumed: Resumable | None,
) -> None:
    """Run the rounds, evaluate and record each, and write the report at the end."""
    started = time.monotonic() - sum(row.seconds for row in folder.rounds)
    test, class_names = embed_test_images(config, encoder, data.test)
    if kept := draw_kept(data.test, mask_spec(config, encoder, ())):
        write_atomic(folder.path / KEPT, kept)
    ledger = open_ledger(folder, resumed)
    checkpoint = resumed.checkpoint if resumed else None
    strategy = create_strategy(
        config, class_names, encoder.embed_dim, ledger, decorrelated=encoder.decorrelated
    )
    if checkpoint is not None:
        strategy.restore(checkpoint.state)
    strategy.require_nodes(grid, checkpoint.round if checkpoint else 0)
    if checkpoint is None:
        folder.write_config(config, len(strategy.roster.prepared))
    if config.dp_clip_norm:
        log(INFO, "%s", describe_privacy(config))
    begun = checkpoint.params if checkpoint else {}
    recorder = Recorder(config, folder, strategy, encoder, test, begun, started)
    strategy.run(grid, recorder.record, checkpoint)
    ledger.close()
    write_atomic(folder.path / FIGURE, draw_accuracy(folder.rounds, folder.path.name))
    recorder.write_summary(is_done=True)
    recorder.write_confusion()
    folder.finish(ledger.seal)
    write_run_report([folder.path], None)
    remove_checkpoint(folder.path)
    log(
        INFO,
        "accuracy %.2f%%, %s down, %s up; results in %s",
        100 * folder.rounds[-1].accuracy,
        readable_bytes(ledger.message_bytes["down"]),
        readable_bytes(ledger.message_bytes["up"]),
        folder.path,
    )


def open_ledger(folder: RunFolder, resumed: Resumable | None) -> Ledger:
    """A new ledger, or the ledger of the run that is resumed."""
    path = folder.path / LEDGER
    if resumed is None:
        return Ledger(path)
    return Ledger.reopen(path, resumed.tables[LEDGER], resumed.checkpoint.seals.files[LEDGER])


def describe_privacy(config: RunConfig) -> str:
    """A sentence on the epsilon of each round, and of all rounds together."""
    total = epsilon_after(config.num_rounds, config.dp_epsilon, config.dp_delta)
    return (
        f"Each round is ({config.dp_epsilon:g}, {config.dp_delta:g}) private for a node's images, "
        f"{config.num_rounds} together ({total:.4g}, {config.dp_delta:g}); counts and statistics "
        "are not covered"
    )


def embed_test_images(
    config: RunConfig, encoder: AnyEncoder, source: ImageSource
) -> tuple[Embeddings, tuple[str, ...]]:
    """The server's test images under one draw of the run's mask, and the names of the classes."""
    count_features(config, len(source.class_names))  # raises for too few anchor-bytes
    spec = mask_spec(config, encoder, ())

    def warn(reason: str) -> None:
        log(WARNING, "A test image is skipped: %s", reason)

    found, _ = embed(source, spec, encoder, cache_dir(config.cache_dir), warn)
    log(INFO, "%d test images in %d classes", found.counts.n_images, len(source.class_names))
    return found, source.class_names


class Recorder:
    """Evaluates the global classifier after each round and writes down what happened.

    params: the classifier that was recorded last, arrays of float32.
    started: when the run began, by `time.monotonic`.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        strategy: FederatedStrategy,
        encoder: AnyEncoder,
        test: Embeddings,
        params: Params,
        started: float,
    ) -> None:
        self.config = config
        self.folder = folder
        self.strategy = strategy
        self.encoder = encoder
        self.test = test
        self.params = params
        rounds = folder.rounds
        # After a resumption, the seconds of the next round count from here.
        self.last = time.monotonic() if rounds else started
        self.bytes = {
            "down": sum(row.bytes_down for row in rounds),
            "up": sum(row.bytes_up for row in rounds),
        }
        self.link_bytes = {
            "down": sum(row.link_bytes_down for row in rounds),
            "up": sum(row.link_bytes_up for row in rounds),
        }

    def record(self, server_round: int, params: Params) -> None:
        """Evaluate and write down a round. Round 0 is what the run starts from.

        params: the classifier after the round, arrays of float32.
        """
        self.params = params
        accuracy, loss = evaluate(params, self.test.values, self.test.labels)
        now, sent = time.monotonic(), dict(self.strategy.ledger.message_bytes)
        on_links = dict(self.strategy.ledger.link_bytes)
        counts = self.strategy.post.counts
        row = Round(
            round=server_round,
            accuracy=round(accuracy, 6),
            loss=round(loss, 6),
            bytes_down=sent["down"] - self.bytes["down"],
            bytes_up=sent["up"] - self.bytes["up"],
            seconds=round(now - self.last, 3),
            asked=counts.asked,
            answered=counts.answered,
            rejected=counts.rejected,
            link_bytes_down=on_links["down"] - self.link_bytes["down"],
            link_bytes_up=on_links["up"] - self.link_bytes["up"],
        )
        self.last, self.bytes, self.link_bytes = now, sent, on_links
        self.folder.add_round(row)
        self.folder.write_model(
            Model(
                params=params,
                class_names=self.strategy.class_names,
                encoder=self.config.encoder,
                encoder_weights=self.config.encoder_weights,
                encoder_digest=self.encoder.digest,
                pooling=self.config.pooling,
                img_px=self.config.img_px,
                precision=self.config.precision,
                mask=self.config.mask,
                mask_ratio=self.config.mask_ratio,
                seed=self.config.seed,
                bands=self.config.bands,
                band_range=self.config.band_range,
                value_range=self.config.value_range,
            )
        )
        self.write_summary(is_done=False)
        self.strategy.ledger.settle()
        # The checkpoint comes last: once it is there, the round is complete.
        seals = self.folder.seal(self.strategy.ledger.seal)
        checkpoint = Checkpoint(server_round, params, self.strategy.save(), seals)
        write_checkpoint(self.folder.path, checkpoint)
        log(INFO, "Round %d: accuracy %.2f%%, loss %.4f", server_round, 100 * accuracy, loss)

    def write_confusion(self) -> None:
        """Write confusion.csv, of the classifier that was recorded last."""
        found = predict(self.params, self.test.values).argmax(axis=1)
        names = self.strategy.class_names
        self.folder.write_confusion(confusion_of(names, self.test.labels, found))

    def write_summary(self, *, is_done: bool) -> None:
        """Write summary.json. is_done: whether the run is over."""
        course = Course(
            nodes=[node.counts for node in self.strategy.roster.prepared.values()],
            test=self.test.counts,
            embed_dim=self.encoder.embed_dim,
            num_classes=len(self.strategy.class_names),
            anchor_used=self.strategy.foundation.used,
            ended_early=self.strategy.ended_early,
            is_done=is_done,
        )
        rounds, ledger = self.folder.rounds, self.strategy.ledger
        self.folder.write_summary(summarise(self.config, rounds, ledger, course))
