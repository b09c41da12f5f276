"""Asking the Hugging Face Hub, or another server of weights, without a long wait if it is away.

The Hub's own client retries for most of a minute and prints each try. Here one short request goes
first: where nobody answers it, the libraries look into their caches only, as with HF_HUB_OFFLINE.
HF_ENDPOINT, HF_HOME and proxies work as usual; on a slow link, raise HF_HUB_ETAG_TIMEOUT.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

WAIT_S = 5.0
WAIT_KEY = "HF_HUB_ETAG_TIMEOUT"  # the client's own setting for slow links
AWAY = (407, 502, 503, 504)  # statuses with which proxies answer for servers they do not reach
QUIET = ("huggingface_hub", "urllib3", "fsspec", "timm")


class FetchError(Exception):
    """Something could be had neither from a server nor from a cache; the text says why."""


@contextmanager
def asking(address: str = "") -> Iterator[None]:
    """A context in which libraries ask the Hub, or only their caches where it cannot be reached.

    address: the server to ask instead of the Hub, if its client has no cache; empty for the Hub.
    `datasets` must be imported before: imported inside while the Hub is away, it would take itself
    to be offline for the rest of the process.
    Raises `FetchError` for any error inside the block.
    """
    from huggingface_hub import constants

    offline = bool(constants.HF_HUB_OFFLINE)
    reason = "HF_HUB_OFFLINE is set" if offline else why_away(address or constants.ENDPOINT)
    if reason and address:
        raise FetchError(reason)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if reason:
            stack.enter_context(_offline())
        try:
            yield
        except Exception as error:  # each library raises many kinds
            is_away = bool(reason) and _is_of_the_network(error)
            raise FetchError(reason if is_away else root_cause(error)) from error


def root_cause(error: BaseException) -> str:
    """The first line of the error that caused all others in a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = str(error).strip().split("\n")[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", line) or type(error).__name__


def why_away(address: str) -> str:
    """Why a server cannot be reached, after one request; empty where it answers anything."""
    wait_s = float(os.environ.get(WAIT_KEY) or WAIT_S)
    host = _route(address)
    silence = f"{host} does not answer within {wait_s:g} s; {WAIT_KEY} sets others"
    answers = [silence]

    def ask() -> None:
        from huggingface_hub import get_session

        try:
            status = get_session().head(address, timeout=wait_s).status_code
        except Exception as error:  # of httpx, or requests with an older client
            is_late = "Timeout" in type(error).__name__
            answers[0] = silence if is_late else f"{host} cannot be reached: {root_cause(error)}"
        else:
            answers[0] = f"{host} answers with status {status}" if status in AWAY else ""

    # A thread, as looking up a name knows no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(wait_s)
    return answers[0]


def _route(address: str) -> str:
    """The host of an address, with the proxy on the way to it, if there is one."""
    scheme, host = urlsplit(address)[:2]
    proxy = urlsplit(getproxies().get(scheme, "")).hostname
    if proxy is None or proxy_bypass(host):
        return host
    return f"{host} (through the proxy {proxy})"


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _offline() -> Iterator[None]:
    from huggingface_hub import constants

    settings: list[Any] = [constants]
    if "datasets" in sys.modules:
        settings.append(sys.modules["datasets"].config)
    before = [module.HF_HUB_OFFLINE for module in settings]
    for module in settings:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _is_of_the_network(error: BaseException | None) -> bool:
    """Whether a library failed because it is offline and its cache lacks what was asked for."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
