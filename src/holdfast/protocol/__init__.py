"""The decisions of both sides of the wire, without any I/O: what to send next, how long to wait, what to answer."""
