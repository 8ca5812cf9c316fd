"""`holdfast index`: indexes of vectors, of the hub or of this machine's log: how they stand, and what fills them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import Progress, count_text
from holdfast.errors import NotFound, UsageError

if TYPE_CHECKING:
    from holdfast.corpus import SqlCorpus
    from holdfast.log.hits import IndexStatus
    from holdfast.node.hub import Hub
    from holdfast.node.store import Store

LOOK_S: Final = 0.25
EMBED: Final = click.option(
    "--embed",
    metavar="MODULE:FUNCTION",
    help="what makes vectors: a list of texts in, a list of vectors out; plain or async",
)
MODEL: Final = click.option("--model", metavar="NAME", help="the name of its model; as --embed says it unless said")
FIELDS: Final = click.option("--field", "fields", multiple=True, metavar="PATH",
                             help="what of a value is embedded; repeat for several; all texts unless said")  # fmt: skip
DIMS: Final = click.option("--dims", type=click.IntRange(1), help="numbers of a vector; as they come unless said")
CHUNK: Final = click.option("--chunk", type=click.IntRange(0), help="letters of a piece of text; 0: never cut")
LOCAL: Final = click.option("--local", is_flag=True, help="of this machine's log, though there is a hub")


@contextlib.contextmanager
def place_of(settings: Settings, *, local: bool) -> Iterator[Store | Hub]:
    """The hub, or the store where there is none or `local` says so."""
    if settings.hub_url is None or local:
        with settings.open_store(hub=False) as store:
            yield store
        return
    from holdfast.node.hub import Hub

    with Hub(settings.hub_urls, settings.token_path) as hub:
        yield hub


def _standing(settings: Settings, local: bool) -> list[tuple[str, IndexStatus]]:
    """Every index and whose log it is of: the hub's own, or those of the agents here, or of the one that was named."""
    if settings.hub_url is not None and not local:
        with place_of(settings, local=False) as hub:
            return [("", each) for each in hub.indexes()]
    from holdfast.node.directory import agents_in

    found = []
    settings.need_store()
    for agent in [settings.who] if settings.is_named else agents_in(settings.path):
        with settings.open_store(agent=agent, hub=False) as store:
            found += [(agent, each) for each in store.indexes()]
    return found


class Function:
    """An embedding function that a command line names.

    Args:
        name: ``module:function``.
        model: the name of its model; None: as `name`.

    Raises:
        UsageError: there is no such function.
    """

    def __init__(self, name: str, model: str | None) -> None:
        from holdfast.settings.functions import function_named

        self.embed = function_named(name)
        self.model = model or name

    def ask_at(self, place: Store | Hub, collection: str | None) -> None:
        """Has searches of a collection embedded by it, as its index was declared; fills nothing but what waits here.

        Raises:
            UsageError: no collection, no index, or one of another model.
        """
        from holdfast.node.hub import Hub

        if collection is None:
            raise UsageError("--embed needs the collection whose index is searched", hint="--collection NAME")
        found = next((each for each in place.indexes() if each.name == collection), None)
        if found is None:
            raise UsageError(f"{collection} has no index", hint=f"holdfast index fill {collection} --embed …")
        if found.model != self.model:
            raise UsageError(
                f"the index of {collection} is of the model {found.model}, and this is {self.model}",
                hint=f"--model {found.model}, if it is that one all the same",
            )
        if isinstance(place, Hub):
            from holdfast.corpus.search.vectors import declared

            place.asking.knows(collection, declared(**_as_declared(found)), self.embed)
        else:
            place.add_index(collection, embed=self.embed, **_as_declared(found))


def _as_declared(found: IndexStatus) -> dict[str, Any]:
    """How an index was declared, which its identity tells: the length of vectors may have been said, or not."""
    from holdfast.corpus.search.vectors import declared

    how: dict[str, Any] = {"model": found.model, "fields": found.fields, "chunk": found.chunk, "dims": None}
    said = {**how, "dims": found.dims or None}
    return said if declared(**said).identity == found.identity else how


@shell.room("index")
def index_command() -> None:
    """Indexes of vectors, by which `search` finds by meaning: the hub's, or without a hub this machine's.

    A hub needs no model: whoever has the function fills the index, with `holdfast index fill` or from Python.
    """


@index_command.command("status")
@click.argument("name", required=False)
@LOCAL
@click.pass_obj
def status_command(settings: Settings, name: str | None, local: bool) -> int:
    """How the indexes stand: what they hold, what waits, and what failed and why. Exits with 3 if something failed."""
    standing = [(agent, each) for agent, each in _standing(settings, local) if name in (None, each.name)]
    found = [each for _, each in standing]
    if name is not None and not found:
        raise _absent(name)
    if settings.as_json:
        import msgspec

        told = [({"agent": agent} if agent else {}) | msgspec.to_builtins(each) for agent, each in standing]
        settings.show.document({"indexes": told})
    else:
        whose = len({agent for agent, _ in standing}) > 1
        rows = [
            (
                *((agent,) if whose else ()),
                each.name,
                each.model,
                "complete" if each.complete else "being filled",
                f"{each.vectors:,}",
                f"{each.pending:,}",
                f"{each.failed:,}",
            )
            for agent, each in standing
        ]
        settings.show.table(
            (*(("AGENT",) if whose else ()), "NAME", "MODEL", "STATE", "VECTORS", "WAITING", "FAILED"), rows
        )
        for each in found:
            if each.building:
                settings.show.note(f"{each.name}: another index is built beside it, and takes its place when complete")
            if each.last_error:
                settings.show.warn(f"{each.name}: {each.last_error}")
            if each.warning:
                settings.show.warn(f"{each.name}: {each.warning}")
    return shell.PARTIAL if any(each.failed for each in found) else 0


@index_command.command("add")
@click.argument("name")
@click.option("--model", metavar="NAME", required=True, help="the name of the model")
@FIELDS
@DIMS
@CHUNK
@click.pass_obj
def add_command(
    settings: Settings, name: str, model: str, fields: tuple[str, ...], dims: int | None, chunk: int | None
) -> None:
    """Have the hub index the collection NAME, and leave the filling to others: `serve --embed`, or any machine.

    Declared otherwise than before it is built beside the index that is there, and takes its place when it is complete.

    \b
      holdfast index add memory --field text --model my-model-3
    """
    settings.need_hub()
    with place_of(settings, local=False) as hub:
        made = hub.add_index(name, fields=fields, model=model, dims=dims, chunk=chunk, embed=None)
    _tell(settings, f"{name} is to be indexed by {model}", made)


@index_command.command("fill")
@click.argument("name")
@click.option("--embed", metavar="MODULE:FUNCTION", required=True,
              help="what makes vectors: a list of texts in, a list of vectors out; plain or async")  # fmt: skip
@MODEL
@FIELDS
@DIMS
@CHUNK
@click.option("--once", is_flag=True, help="end when nothing waits; else it goes on until Ctrl-C")
@LOCAL
@click.pass_obj
def fill_command(
    settings: Settings,
    /,
    name: str,
    embed: str,
    model: str | None,
    once: bool,
    local: bool,
    **how: Any,
) -> int:
    """Fill the index of the collection NAME with a function, and declare it if it is not there.

    Any number of machines may; the hub gives each text to one of them at a time. What the function fails on is tried
    again, ever more rarely, and holds nothing else up. With --once it exits with 3 if something failed.

    \b
      holdfast index fill memory --embed my_models:embed --field text
      holdfast index fill memory --embed my_models:embed --model my-model-3 --once
    """
    function = Function(embed, model)
    lasting()
    with place_of(settings, local=local) as place:
        there = next((each for each in place.indexes() if each.name == name), None)
        if there is not None and there.model == function.model and not any(how.values()):
            how = _as_declared(there)  # as somebody has declared it
        made = place.add_index(name, embed=function.embed, **{**how, "model": function.model})
        settings.show.note(f"filling the index of {name} by {function.model}; Ctrl-C ends it" * (not once))
        with Progress(settings.show, name, 1) as bar:
            while True:
                found = _of(place, name, made.identity)
                done = found.vectors / max(1, found.vectors + found.pending)
                bar.at(
                    1 if done >= 1 else 0, f"{found.vectors:,} vectors, {count_text(found.pending, 'record')} waiting"
                )
                alone = _left_alone(found)  # asked once: its next try may begin while this is told
                if once and (alone or (found.complete and not found.pending)):
                    break
                time.sleep(LOOK_S)
    _tell(settings, f"{name}: {count_text(found.vectors, 'vector')}", found)
    if found.failed or alone:
        settings.show.complain(f"{name}: {count_text(found.failed, 'record')} failed: {found.last_error}")
        return shell.PARTIAL
    return 0


def _left_alone(found: IndexStatus) -> bool:
    """Whether the function fails whatever it is given, and is tried again only later."""
    from holdfast.clock import SYSTEM, parse_time

    return found.next_try is not None and parse_time(found.next_try) > SYSTEM.now_ms()


def _of(place: Store | Hub, name: str, identity: str) -> IndexStatus:
    found = next((each for each in place.indexes() if each.name == name), None)
    if found is None or identity not in (found.identity, found.building):
        raise NotFound(f"the index of {name} was dropped, or declared otherwise", hint="holdfast index status")
    return found


@index_command.command("rebuild")
@click.argument("name")
@LOCAL
@click.pass_obj
def rebuild_command(settings: Settings, name: str, local: bool) -> None:
    """Forget the vectors of the collection NAME, and have all of them made anew by whoever fills it."""
    if settings.hub_url is not None and not local:
        with place_of(settings, local=False) as hub:
            made: Any = hub.asking.rebuild(name)  # type: ignore[union-attr]
    else:
        with settings.open_log(settings.who) as opened:
            there = _rebuild_here(opened.corpus, name)
        if not there:
            raise _absent(name, _elsewhere(settings, name, local))
        with place_of(settings, local=True) as store:
            made = next(each for each in store.indexes() if each.name == name)
    _tell(settings, f"{name}: every vector is made anew", made)


def _rebuild_here(corpus: SqlCorpus, name: str) -> bool:
    from holdfast.corpus.search import vectors
    from holdfast.corpus.search.indexes import indexes

    found = indexes(corpus, name)
    if found:
        vectors.drop(corpus, name)
        vectors.declare(corpus, name, found[-1].declared)
    return bool(found)


def _elsewhere(settings: Settings, name: str, local: bool) -> list[str]:
    """Whose logs here have such an index, where nobody said whose."""
    if settings.hub_url is not None and not local:
        return []
    return [agent for agent, each in _standing(settings, True) if each.name == name]


@index_command.command("drop")
@click.argument("name")
@LOCAL
@click.pass_obj
def drop_command(settings: Settings, name: str, local: bool) -> None:
    """End the index of the collection NAME; searches go by words from then on. Its values stay."""
    with place_of(settings, local=local) as place:
        dropped = place.drop_index(name)
    if not dropped:
        raise _absent(name, _elsewhere(settings, name, local))
    settings.show.result(f"dropped the index of {name}", {"name": name, "dropped": True})


def _tell(settings: Settings, text: str, made: IndexStatus) -> None:
    import msgspec

    settings.show.result(text, msgspec.to_builtins(made))


def _absent(name: str, elsewhere: list[str] | None = None) -> NotFound:
    hint = "holdfast index status shows what there is"
    if elsewhere:
        hint = f"--agent {elsewhere[0]}: {', '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} one here"
    return NotFound(f"{name} has no index of vectors", hint=hint)
