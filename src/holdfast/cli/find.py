"""`holdfast search`: what agents know, by words, by meaning, or both."""

from __future__ import annotations

from typing import Any, Final

import click

from holdfast.cli import shell, values
from holdfast.cli.index import EMBED, MODEL, Function
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, safe, version_text
from holdfast.errors import UsageError

MODES: Final = ("auto", "text", "vector", "hybrid")


@shell.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--collection", "-c", help="only in this name space; any unless said")
@click.option("--from", "writer", metavar="AGENT", help="only what this agent wrote, as --agent")
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
@click.option("--local", is_flag=True, help="only in the logs on this machine; asks no hub")
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
) -> int:
    """Find what agents wrote: all those of this machine, and through a hub everybody. Each hit says whose it is.

    --agent narrows it to one. What was replaced or erased is gone. When a hub does not answer, or a log cannot be
    read, the others do, and the exit code is 3.

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
    from holdfast.cli.asking import ask

    how |= {"filter": wanted, "agent": how.pop("writer")}
    found = ask(settings, " ".join(words), how, local=local, function=function)
    show = settings.show
    if found.hub is False:
        show.warn("the hub does not answer: only what this machine has", hint="holdfast status")
    for agent, why in found.left_out:
        show.note(f"{agent}: not searched: {why}")
    for agent, why in found.failed:
        show.complain(f"{agent}: {why}")
    code = shell.PARTIAL if found.hub is False or found.failed else 0
    if settings.as_json:
        document: dict[str, Any] = {"hits": [each.to_json() for each in found.hits], "mode": found.mode}
        document |= {"partial": found.partial or bool(code), "pending": found.pending, "asked": found.asked}
        show.document(document)
        return code
    for hit in found.hits:
        where = f"{hit.agent} {hit.collection}/{hit.key} v{hit.version}"
        settings.show.line(f"{hit.score:.3f}  {safe(where)}  {clock_text(hit.time)}")
        settings.show.line(f"       {safe(version_text(hit))}")
        if hit.parts is not None:
            told = ", ".join(f"{name} {_part(value)}" for name, value in hit.parts.items())
            settings.show.line(settings.show.paint(f"       {safe(told)}", "dim"))
    if not found.hits:
        who = [*found.asked[:10], *(["the hub"] if found.hub else []), *(["others"] if len(found.asked) > 10 else [])]
        show.note(f"nothing was found; asked: {', '.join(who) or 'nobody'}")
    if found.partial:
        settings.show.note("the index of words is behind: there may be more")
    if found.pending:
        settings.show.note(f"{count_text(found.pending, 'record')} without a vector yet: found by words alone")
    return code


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
