"""`holdfast search`: what agents know, by words, by meaning, or both."""

from __future__ import annotations

from typing import Any, Final

import click

from holdfast.cli import shell, values
from holdfast.cli.index import EMBED, MODEL, Function, place_of
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, safe, version_text
from holdfast.errors import UsageError

MODES: Final = ("auto", "text", "vector", "hybrid")


@shell.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--collection", "-c", help="only in this name space; any unless said")
@click.option("--from", "agent", metavar="AGENT", help="only what this agent wrote")
@click.option("--kind", help="only records of this kind, such as message")
@click.option(
    "--filter", "condition", metavar="JSON", help='only values that meet it, such as \'{"sure": {"gte": 0.5}}\''
)
@click.option("--mode", type=click.Choice(MODES), default="auto", show_default=True,
              help="by words, by meaning, or both; auto: both where there is an index and --embed")  # fmt: skip
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000), help="the best so many")
@click.option("--at", metavar="TIME", help="among what was current then: ISO 8601, seconds since 1970, or a cursor")
@click.option("--min-score", type=float, help="nothing below it; 1.0 by words: only what holds all of them")
@click.option("--explain", is_flag=True, help="say what each score is made of")
@click.option("--local", is_flag=True, help="only in this machine's log; asks no hub")
@EMBED
@MODEL
@click.pass_obj
def search_command(
    settings: Settings,
    /,
    words: tuple[str, ...],
    condition: str | None,
    local: bool,
    embed: str | None,
    model: str | None,
    **how: Any,
) -> None:
    """Find what agents wrote. With a hub everybody's, without one this agent's; what was replaced or erased is gone.

    What holds every word comes first, the newest of it first, then what holds the heavier part of them. A phrase stands
    in double quotes, and `word*` is a beginning. For a search by meaning the collection has an index of vectors, and
    --embed names the function that made it.

    \b
      holdfast search tea
      holdfast search which tea does she like --collection memory --explain
      holdfast search '"green tea"' --filter '{"tags": {"contains": "drinks"}}'
      holdfast search what does she drink --collection memory --embed my_models:embed
    """
    if how["at"] is not None:
        how["at"] = _moment(how["at"])
    wanted = None if condition is None else _condition(condition)
    function = None if embed is None else Function(embed, model)
    with place_of(settings, local=local) as place:
        if function is not None:
            function.ask_at(place, how["collection"])
        found = place.search(" ".join(words), filter=wanted, **how)
    if settings.as_json:
        hits = [each.to_json() for each in found]
        settings.show.document({"hits": hits, "mode": found.mode, "partial": found.partial, "pending": found.pending})
        return
    for hit in found:
        where = f"{hit.agent} {hit.collection}/{hit.key} v{hit.version}"
        settings.show.line(f"{hit.score:.3f}  {safe(where)}  {clock_text(hit.time)}")
        settings.show.line(f"       {safe(version_text(hit))}")
        if hit.parts is not None:
            told = ", ".join(f"{name} {_part(value)}" for name, value in hit.parts.items())
            settings.show.line(settings.show.paint(f"       {safe(told)}", "dim"))
    if not found:
        settings.show.note("nothing was found")
    if found.partial:
        settings.show.note("the index of words is behind: there may be more")
    if found.pending:
        settings.show.note(f"{count_text(found.pending, 'record')} without a vector yet: found by words alone")


def _part(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _moment(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _condition(text: str) -> Any:
    found = values.given(text)
    if not isinstance(found, dict):
        raise UsageError(f"no condition: {text!r:.80}", hint='a JSON object, such as \'{"sure": {"gte": 0.5}}\'')
    return found
