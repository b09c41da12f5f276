"""A link that can be cut: what connects to it is passed on until then."""

import socket
import threading
from contextlib import suppress

PIECE = 65536


class Link:
    """Passes connections at `port` on to another port of this host. n_bytes: (up, down) so far."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.opened = 0
        self.n_up = 0
        self.cut_after_up: int | None = None  # bytes after which it is cut by itself, once
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, as when a modem loses its address."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Cut it for good."""
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self.opened += 1
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(
                        target=self._pass, args=(*pair, pair[0] is near), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                if is_up:
                    self.n_up += len(piece)
                    if self.cut_after_up is not None and self.n_up > self.cut_after_up:
                        self.cut_after_up = None
                        self.cut()
                        return
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
