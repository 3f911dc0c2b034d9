"""The Python blocks of README and docs run as they are printed.

Each page is one program: its blocks run in order and share their names. A word after a fence's language says
how:

- `notest`: the block is only looked at.
- `file=name.py`: the block is a piece of that file, and later blocks may `import name`.

A block may stand in an HTML comment, where readers don't see it: what a page needs but does not tell. At the
top level `await` works, and a function `test_...` without parameters is called after its block.
"""

import ast
import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]

FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[ \t]*(?P<words>.*)")
WORD = re.compile(r"(?P<name>\w+)(?:=(?:\"(?P<quoted>[^\"]*)\"|(?P<value>\S+)))?")
DISPLAY_WORDS = {"hl_lines", "linenums", "title"}


@dataclass(frozen=True)
class Block:
    """A fenced block of Python in a page."""

    page: Path
    line: int
    """The line of the block's first line of code, from 1."""
    source: str
    is_tested: bool
    file: str | None

    def compile(self) -> CodeType:
        """Compile the block so that its errors and tracebacks name the page and its lines."""
        blank_lines = "\n" * (self.line - 1)
        code: CodeType = compile(
            blank_lines + self.source,
            str(self.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        return code


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    """Yield the Python blocks of a page.

    Raises:
        ValueError: A block is not closed, or has a word that means nothing (a misspelt `notest` would run).
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.fullmatch(lines[number])
        number += 1
        if opening is None:
            continue
        start = number
        while number < len(lines) and lines[number].strip() != opening["fence"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}:{start}: the block is not closed")
        if opening["language"] == "python":
            words = words_of(opening["words"], f"{page}:{start}")
            indent = len(opening["indent"])
            source = "\n".join(line[indent:] for line in lines[start:number]) + "\n"
            yield Block(page, start + 1, source, "notest" not in words, words.get("file"))
        number += 1


def words_of(text: str, place: str) -> dict[str, str]:
    """Return the words after a fence's language, each with its value."""
    words = {word["name"]: word["quoted"] or word["value"] or "" for word in WORD.finditer(text)}
    if unknown := words.keys() - DISPLAY_WORDS - {"file", "notest"}:
        raise ValueError(f"{place}: what does {sorted(unknown)[0]!r} mean? Known are notest and file=name.py")
    return words


def run_page(blocks: list[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in order, in one namespace and, where they await, in one event loop."""
    program = ModuleType("page")
    monkeypatch.setitem(sys.modules, program.__name__, program)
    with asyncio.Runner() as runner:
        for block in blocks:
            if not block.is_tested:
                continue
            known = set(vars(program))
            if block.file is not None:
                monkeypatch.setitem(sys.modules, block.file.removesuffix(".py"), program)
            run(runner, eval(block.compile(), vars(program)))
            for name in vars(program).keys() - known:
                if name.startswith("test_") and inspect.isfunction(test := vars(program)[name]):
                    run(runner, test())


def run(runner: asyncio.Runner, result: Any) -> None:  # whatever a block or a function of a page returns
    """Finish what a block or a test function began, if it awaits."""
    if inspect.iscoroutine(result):
        runner.run(result)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types in what a page prints sees it work."""
    monkeypatch.chdir(tmp_path)
    run_page(list(blocks_of(page, page.read_text("utf-8"))), monkeypatch)


PAGE = Path("page.md")

EXAMPLE = '''
# A page

```sh
make demo
```

```python file=numbers_.py
one = 1
```

<!--
```python
import asyncio
two = 2
```
-->

!!! note

    ```python title="sum.py" hl_lines="2"
    from numbers_ import one
    three = await asyncio.sleep(0, one + two)
    ```

```python notest
this is not Python
```

````python
def test_three():
    called.append(three)

async def test_four():
    called.append("""
```python
```
""")

called = []
````
'''


def test_a_page_is_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks share names, import each other's files, await, and hidden, indented and longer fences count."""
    blocks = list(blocks_of(PAGE, EXAMPLE))
    assert [block.line for block in blocks] == [9, 14, 22, 27, 31]
    run_page(blocks, monkeypatch)
    called: list[object] = vars(sys.modules["page"])["called"]
    assert sorted(map(str, called)) == ["\n```python\n```\n", "3"]


def test_an_error_points_to_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that does not compile, or raises, names the page and the line in it."""
    with pytest.raises(SyntaxError) as wrong:
        run_page(list(blocks_of(PAGE, "text\n\n```python\nx = 1\nx =\n```\n")), monkeypatch)
    assert (wrong.value.filename, wrong.value.lineno) == ("page.md", 5)
    with pytest.raises(ZeroDivisionError) as raised:
        run_page(list(blocks_of(PAGE, "text\n\n```python\nx = 1\nx / 0\n```\n")), monkeypatch)
    frame = raised.traceback[-1]
    assert (str(frame.path), frame.lineno + 1) == ("page.md", 5)


@pytest.mark.parametrize("text", ["```python no-test\n```\n", "```python\nx = 1\n"])
def test_a_misspelt_block_is_refused(text: str) -> None:
    """An unknown word after the language and a fence that is not closed are mistakes in the page."""
    with pytest.raises(ValueError, match=r"^page\.md:1: "):
        list(blocks_of(PAGE, text))
