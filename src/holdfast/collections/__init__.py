"""Typed views over a log: what people and frameworks call messages, sessions, artifacts. Never a second truth."""

from holdfast.collections.messages import Message, envelope, message_in, message_of

__all__ = ["Message", "envelope", "message_in", "message_of"]
