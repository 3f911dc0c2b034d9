"""Hooks of the documentation's build."""

import re

FENCE = re.compile(r"(?P<opening>[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*[\w+-]*)(?P<words>.*)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Translate what the tests read after a block's language: a file becomes the block's title."""
    lines = markdown.split("\n")
    closing: str | None = None
    for number, line in enumerate(lines):
        if closing is not None:
            if line.strip() == closing:
                closing = None
        elif fence := FENCE.fullmatch(line):
            closing = fence["fence"]
            words = re.sub(r"\bfile=(\S+)", r'title="\1"', fence["words"].replace("notest", ""))
            lines[number] = (fence["opening"] + words).rstrip()
    return "\n".join(lines)
