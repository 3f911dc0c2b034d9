"""What the application is made of; one container for each application."""

from dependency_injector import containers, providers
from limits.aio.storage import MemoryStorage

from examples.secure.accounts import Accounts
from examples.secure.attempts import Attempts
from examples.secure.notices import Notices
from examples.secure.sessions import Sessions
from examples.secure.settings import Settings


class Container(containers.DeclarativeContainer):
    settings = providers.Dependency(instance_of=Settings)
    accounts = providers.Singleton(Accounts)
    sessions = providers.Singleton(Sessions, settings.provided.session_lifetime)
    attempts = providers.Singleton(Attempts, providers.Singleton(MemoryStorage))
    notices = providers.Singleton(Notices)
