"""What a node answers where it cannot do what it was asked."""

from logging import WARNING

from flwr.app import Error, Message
from flwr.common import log

from fed_ist.errors import InputError, file_trouble

BAD_INPUT = 2  # the error code of a reply that says what is wrong with the node's input


def refusal(error: InputError | OSError, message: Message) -> Message:
    """The answer to a message that says what is wrong with the node's input, or its disk."""
    reason = str(error)
    if not isinstance(error, InputError):
        reason = f"This node cannot go on: {file_trouble(error)}. Is its disk full?"
    log(WARNING, "%s", reason)
    return Message(Error(BAD_INPUT, reason), reply_to=message)
