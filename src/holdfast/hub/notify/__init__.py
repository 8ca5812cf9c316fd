"""Notifications out: a hub tells people of messages by webhook or ntfy, when somebody made a rule for it.

rules.py      what a rule says, which message it fits, when it may speak     vault.py   its address and secrets, sealed
outbox.py     what is still to be told: rows that survive a restart          letter.py  what is sent, and its signature
post.py       one request, to an address that is allowed                     running.py the hub's task that does it all
shapes.py     what is shown of all that
desk.py       making, changing and trying rules: for the API and the pages
"""
