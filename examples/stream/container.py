"""What the application is made of; each part lives as long as the application."""

from pathlib import Path

from dependency_injector import containers, providers

from examples.stream.composer import Composer
from examples.stream.ledger import Ledger


class Container(containers.DeclarativeContainer):
    """One for each application."""

    passages = providers.Callable(Path(__file__).with_name("passages.txt").read_text, encoding="utf-8")
    composer = providers.Singleton(Composer, passages)
    ledger = providers.Singleton(Ledger)
