"""A SuperNode as a process: its log, its children, how it ends and how it returns."""

import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fed_ist.errors import InputError
from fed_ist.launch.processes import end_family

START_TIMEOUT_S = 90.0
CLIENT_APP = "flwr-clientapp"
ROUND = re.compile(r"\[RUN \d+, ROUND (\d+)\]")
SAID = re.compile(r"(Receiving|Sending): (\S+) message|(Received|Sent) successfully")
WORDS = {"Receiving": "poll", "Received": "received", "Sending": "reply", "Sent": "sent"}


@dataclass(frozen=True)
class Event:
    """Something that a SuperNode logged.

    at_s: when, by `time.monotonic`. what: "poll" (it brought a message), "received", "reply" (it is
    ready) or "sent". round, kind: of the message; its kind is Flower's message type, such as
    "train".
    """

    at_s: float
    what: str
    round: int
    kind: str


@dataclass
class SuperNode:
    """A SuperNode that can be started again.

    node_id: Flower's number of the node; "" until it is connected. said: the lines of its log.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    process: "subprocess.Popen[str] | None" = None
    node_id: str = ""
    events: list[Event] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start it; its log is read until it ends."""
        self.node_id = ""
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        server_round, kind = 0, ""
        for line in process.stdout:
            now = time.monotonic()
            self.said.append(line.rstrip())
            if found := re.search(r"SuperNode ID: (\d+)", line):
                self.node_id = found[1]
            elif found := ROUND.search(line):
                server_round = int(found[1])
            elif found := SAID.search(line):
                kind = found[2] or kind
                self.events.append(Event(now, WORDS[found[1] or found[3]], server_round, kind))

    def family(self) -> list[psutil.Process]:
        """Its processes that run: itself and everything that it has started."""
        if self.process is None or self.process.poll() is not None:
            return []
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def is_at_work(self, server_round: int, kind: str) -> bool:
        """Whether it has received a message of this round and kind, and has no reply to it yet."""
        return bool(self.events) and (
            self.events[-1].what == "received"
            and (self.events[-1].round, self.events[-1].kind) == (server_round, kind)
        )

    def client_app(self) -> psutil.Process | None:
        """The process that works on a message; None where there is none."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                if any(Path(part).name == CLIENT_APP for part in process.cmdline()[:2]):
                    return process
        return None

    def cut_power(self) -> None:
        """Kill it and everything that it has started, so that the server is not told."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()

    def end(self) -> None:
        """End it in an orderly way, in which it tells the server."""
        if self.process is not None:
            end_family(self.process)

    def restart(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it again and again until the SuperLink takes it, as systemd does.

        For up to a minute after a cut, Flower takes the node for connected and refuses it; and on a
        bad link the node gives up after some tries. Raises `InputError` after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self.start()
            try:
                return self.wait_until_connected(deadline - time.monotonic())
            except InputError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def wait_until_connected(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it is connected; raises `InputError` where it is not after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.node_id:
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise InputError(
                    "A SuperNode did not connect. The end of its log:\n" + "\n".join(self.said[-5:])
                )
            time.sleep(0.1)
