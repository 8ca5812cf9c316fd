"""Messages that want to be more than text, in every place where a message has text."""

from __future__ import annotations

from typing import Any

from tests.ui.furnishing import HOSTILE

MARKDOWN = (
    "[click](javascript:window.owned=1)",
    "[click](JaVaScRiPt:window.owned=1 'x')",
    "[click](<java\tscript:window.owned=1>)",
    "[click](&#106;avascript:window.owned=1)",
    "[click](data:text/html,<script>window.owned=1</script>)",
    "[click](vbscript:x) [click](file:///etc/passwd) [click](blob:x) [click](//evil.example/x) [click](/sign-out)",
    '[click](https://evil.example/"onmouseover="window.owned=1)',
    "[click](https://evil.example/ \"x' onmouseover='window.owned=1\")",
    "[https://bank.example](https://evil.example/login)",
    "<javascript:window.owned=1> <data:text/html,x> <https://evil.example/?x=<script>>",
    "![pixel](https://evil.example/pixel.gif) ![x](javascript:window.owned=1)",
    "[![pixel](https://evil.example/a.png)](javascript:window.owned=1)",
    "<!-- <script>window.owned=1</script> --> <!--><img src=x onerror=window.owned=1>-->",
    "<a href=javascript:window.owned=1 hx-get=/livez hx-trigger=load>x</a>",
    "<div hx-get=/sign-out hx-trigger=load hx-on:load=window.owned=1></div>",
    "<style>*{display:none}</style><link rel=stylesheet href=https://evil.example/x.css><base href=https://evil.example>",
    "<form action=https://evil.example><input name=token></form><iframe src=https://evil.example></iframe>",
    '```html onload=window.owned=1 "><script>window.owned=1</script>\n<script>window.owned=1</script>\n```',
    "    <script>window.owned=1</script>",
    "# <script>window.owned=1</script> {onclick=window.owned=1}",
    "[a]: javascript:window.owned=1\n[a] and [b][a]",
    "1. <svg/onload=window.owned=1>\n2. **<img src=x onerror=window.owned=1>**",
    "`<script>window.owned=1</script>` *<b onclick=window.owned=1>*",
    "\u202egnp.exe [\u202ehttps://good.example](https://evil.example)",
)
"""What only a reader of Markdown would take for more than it is."""
LARGE = {
    "deep quotes": ">" * 1000 + " x",
    "deep quotes apart": "> " * 1000 + "x",
    "deep lists": "\n".join(f"{'  ' * depth}- {depth}" for depth in range(500)),
    "a megabyte": "All is well. **Really** [so](https://good.example). " * 20_000,
    "brackets": "[" * 20_000,
    "images": "![" * 10_000,
    "stars": "*a_ " * 5_000,
    "ticks": "".join("`" * (number % 150) + "x" for number in range(250)),
    "angles": "<" * 20_000,
    "links": "[a](<b" * 3_000,
    "entities": "&#x26;" * 3_300,
    "references": "[a]: https://evil.example/" + "x" * 9_000 + "\n\n" + "[a]" * 3_000,
    "breaks": "\n" * 20_000,
    "one line": "x" * 20_000,
    "tables": "|" + "a|" * 5_000 + "\n|" + "-|" * 5_000 + "\n" + "|b|\n" * 2_000,
}
"""What is short to write, and long or deep to read."""


def hostile_messages() -> list[dict[str, Any]]:
    """Bodies of `POST /sync/message`, each with a hostile text wherever one can stand."""
    names = [text for text in HOSTILE if text.isprintable() and len(text) < 200]
    out = []
    for number, text in enumerate((*HOSTILE, *MARKDOWN)):
        name = names[number % len(names)]
        offer = {"name": name, "id": f"{name}{number}", "title": text, "args": {text: [text]}, "destructive": True}
        out.append(
            {
                "msg_id": f"{number}{name[:100]}",
                "sender": f"{name[:100]}{number}",
                "recipient": "people",
                "kind": "question" if number % 3 == 0 else name[:60],
                "task_id": name,
                "thread": f"thread {name}",
                "priority": "hot",
                "role": name[:60],
                "content": text if number % 2 else {"text": text, text: {text: text}, "title": text},
                "options": [text, "no"] if number % 3 == 0 else None,
                "actions": [offer, {"name": 7}, text],
                "artifacts": [text, {"name": text, "id": f"file_{'0' * 32}"}, {"name": text, "digest": "0" * 64}],
                text[:50]: text,
            }
        )
    return out
