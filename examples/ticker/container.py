"""What the application is made of; each part lives as long as the application."""

from dependency_injector import containers, providers

from examples.ticker.market import Market


class Container(containers.DeclarativeContainer):
    """One for each application."""

    market = providers.Singleton(Market)
