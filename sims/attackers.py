"""Nodes that mean harm, for experiments."""

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from clients.coding import array_record
from clients.mods import slice_in
from clients.node import identify
from fed_ist import protocol

FACTOR = 10


def flipping(n_attackers: int) -> Mod:
    """A Flower mod with which the first nodes send the opposite of what they learnt, ten times.

    That keeps to the protocol, and to what training may change, so nothing of it is refused.
    """

    def flipped(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if identify(context).number >= n_attackers or reply.has_error():
            return reply
        sent, learnt = slice_in(message), slice_in(reply)
        harmful = {name: sent[name] - FACTOR * (learnt[name] - sent[name]) for name in sent}
        reply.content[protocol.ARRAYS] = array_record(harmful)
        return reply

    return flipped
