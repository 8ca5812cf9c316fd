"""What agents write, as HTML that does nothing: Markdown through an allow-list. The one door of markdown-it.

The library parses; what comes out is written here, tag by tag. Whatever has no line below comes out as text: HTML,
images, links to anything but the web and mail. A text without markup never gets as far as the library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from markdown_it.token import Token

NESTED_MAX: Final = 16
"""Quotes and lists within each other; a text that goes deeper is shown as it was written."""
URL_MAX: Final = 2_000
GROWTH_MAX: Final = 8
"""Bytes of HTML for one of the text, beyond which it is shown as it was written."""
_MARKUP: Final = re.compile(
    r"[*_`\[\\<>#&]|^ {0,3}(?:[-+]|\d{1,9}[.)])[ \t]|^(?: {4}|\t)|^ {0,3}(?:=+|-+)[ \t]*$", re.MULTILINE
)
_WITHIN: Final = re.compile(r"[*`\[\\]|(?<!\w)_|_(?!\w)|&[#\w]|<\w")
"""What may be markup within a line; a name such as `task_17` is none."""
_URL: Final = re.compile(r"(?:https?://[^\s/?#\\@][^\s\\]*|mailto:[^\s\\]+)", re.IGNORECASE)
_REL: Final = "noopener noreferrer nofollow"
_TAGS: Final = {
    "paragraph": "p",
    "blockquote": "blockquote",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "em": "em",
    "strong": "strong",
}
"""What of a text becomes an element, by the parser's names; none of them has an attribute."""


def rendered(text: str) -> Markup:
    """A text as HTML in which nothing acts, loads or leads anywhere but to the web, to mail, or to nowhere."""
    if _MARKUP.search(text):
        made = _rendered(text)
        if made is not None and len(made) <= GROWTH_MAX * len(text) + 1_000:
            return Markup(made)  # every part of it was escaped, or is ours
    return Markup('<p class="text">{}</p>').format(text)


def plain(line: str) -> str:
    """One line of a text as somebody would read it out: without its marks; of a link, what it says."""
    if not _WITHIN.search(line):
        return line
    try:
        said = "".join(token.content for token in _flat(_parser().parseInline(line)))
    except RecursionError:
        return line
    return said if said.strip() else line


def is_safe_url(url: str) -> bool:
    """Whether a link to this may be made: whole addresses of the web and of mail, and nothing else."""
    return len(url) <= URL_MAX and _URL.fullmatch(url) is not None


def _rendered(text: str) -> str | None:
    env: dict[str, Any] = {}
    try:
        tokens = _parser().parse(text, env)
    except RecursionError:
        return None
    return None if "deep" in env else "".join(_html(tokens))


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock

    class Parser(MarkdownIt):
        def validateLink(self, url: str) -> bool:
            return is_safe_url(url)

    def deep(state: StateBlock, _first: int, _last: int, _silent: bool) -> bool:
        # Below its limit the library leaves out what is nested; here nothing that was written may be missing.
        if state.level >= NESTED_MAX:
            state.env["deep"] = True
        return False

    made = Parser("commonmark", {"html": False, "breaks": True, "maxNesting": NESTED_MAX + 4})
    # One definition could be named thousands of times: what is short to write would be long to send.
    made.disable(["html_block", "html_inline", "reference"])
    made.block.ruler.before("code", "deep", deep)
    return made


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "inline":
            yield from token.children or ()
        else:
            yield token


def _html(tokens: Sequence[Token]) -> Iterator[str]:
    place, said = "", list[str]()  # where the link that is open leads, and what it says
    for token in _flat(tokens):
        kind, _, end = token.type.rpartition("_")
        if token.type == "link_open":
            place, said = str(token.attrGet("href") or ""), []
            yield _link(place)
        elif token.type == "link_close":
            yield f"</a>{_leads_to(place, ''.join(said))}"
            place = ""
        elif token.type == "image":
            yield from _image(token, inside=bool(place))
        elif kind == "heading":  # of the message, and not of the page
            yield '<p class="heading"><strong>' if end == "open" else "</strong></p>"
        elif kind in _TAGS:
            if not token.hidden:
                yield f"<{_TAGS[kind]}{_start(token)}>" if end == "open" else f"</{_TAGS[kind]}>"
        elif token.type in ("softbreak", "hardbreak"):
            yield "<br>"
        elif token.type == "hr":
            yield "<hr>"
        elif token.type == "code_inline":
            said.append(token.content)
            yield f"<code>{escape(token.content)}</code>"
        elif token.type in ("fence", "code_block"):
            yield f"<pre><code>{escape(token.content)}</code></pre>"
        else:
            said.append(token.content)
            yield str(escape(token.content))


def _start(token: Token) -> str:
    """The number that a list begins with."""
    first = token.attrGet("start") if token.type == "ordered_list_open" else None
    return "" if first is None else f' start="{int(first)}"'


def _link(place: str) -> str:
    return f'<a href="{escape(place)}" rel="{_REL}">' if is_safe_url(place) else "<a>"


def _leads_to(place: str, said: str) -> str:
    """The host of a link that says something else: who reads it is to know before he goes there."""
    try:
        host = urlsplit(place).netloc or place.partition(":")[2].partition("?")[0]
    except ValueError:
        return ""
    return "" if not host or host in said else f' <span class="quiet">({escape(host[:100])})</span>'


def _image(token: Token, *, inside: bool) -> Iterator[str]:
    """An image is a link to it: to load it would tell its host who reads this, and when."""
    place, said = str(token.attrGet("src") or ""), f"image: {token.content or 'without a name'}"
    if inside or not is_safe_url(place):
        yield str(escape(f"[{said}]"))
    else:
        yield f"{_link(place)}{escape(said)}</a>{_leads_to(place, said)}"
