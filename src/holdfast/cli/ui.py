"""Commands about a hub's pages. They work on its directory or its database, also while it runs."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import click

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text
from holdfast.cli.tokens import store_of, where
from holdfast.clock import SYSTEM, iso
from holdfast.errors import NotFound

LINK_MS: Final = 600_000
_ADDRESS: Final = "http://127.0.0.1:8084"


@shell.room("ui")
def ui_command() -> None:
    """A hub's pages, for a browser: the Overview is at its address, and docs/ui.md says what else there is."""


@ui_command.command("link")
@where
@click.option("--url", default=_ADDRESS, show_default=True, help="the hub's address, as the browser asks it")
@click.option("--name", default="me", show_default=True, help="whose sign-in it is; the history names him as author")
@click.option("--admin", is_flag=True, help="it may do everything; else read, and act on the inbox")
@click.option("--token", "token_id", metavar="ID", help="sign in with this token in place of a new one")
@click.pass_obj
def link_command(
    settings: Settings,
    /,
    data: Path | None,
    database: str | None,
    url: str,
    name: str,
    admin: bool,
    token_id: str | None,
) -> None:
    """Make a link that signs somebody in to a hub's pages: once, within ten minutes, for a week.

    \b
      holdfast ui link --data /srv/holdfast
      holdfast ui link --data /srv/holdfast --name ada --admin --url https://hub.lan:8084
    """
    from holdfast.hub import acts, tokens
    from holdfast.hub.principal import ADMIN
    from holdfast.hub.sign_ins import SESSION_MS, SignIn, digest_of

    now = SYSTEM.now_ms()
    with store_of(data, database) as store:
        if not store.changes()[1]:
            # The first token would close the hub to everybody who needs none now.
            settings.show.note("no token was ever made for this hub, so nobody needs to sign in, unless it was started")
            settings.show.note("with --token-file: then paste that token there")
            settings.show.result(url, {"url": url, "ends": None})
            return
        if token_id is None:
            scopes = (ADMIN,) if admin else ()
            wish = tokens.Wish(
                kind="person", name=name, scopes=scopes, ends_ms=now + SESSION_MS, note="a sign-in by holdfast ui link"
            )
            token, _ = tokens.create(store, wish)
        else:
            found = store.find(token_id)
            if found is None or found.state(now) != "valid":
                raise NotFound("this hub has no valid token with that id", hint="holdfast token ls shows them")
            token = found
        secret = secrets.token_urlsafe(32)
        store.sign_ins().add(SignIn(digest_of(secret), "link", token.id, now, now + LINK_MS))
        detail = {"id": token.id, "scopes": ", ".join(token.scopes)}
        made = acts.Act(by=acts.by_machine(), what=acts.LINK, about=f"{token.kind} {token.name}", detail=detail)
        acts.tell(store.acts(), made)
    link = f"{url.rstrip('/')}/sign-in?link={secret}"
    settings.show.result(link, {"url": link, "token": token.id, "ends": iso(now + LINK_MS)})
    settings.show.note(f"works once, until {clock_text((now + LINK_MS) / 1000)}; {', '.join(token.scopes)}")
