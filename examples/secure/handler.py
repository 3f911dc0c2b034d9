"""The board: one instance for each connection."""

from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide

from examples.secure.accounts import Accounts
from examples.secure.container import Container
from examples.secure.messages import AccountEntry, AccountList, Board, Clear, Disable, ListAccounts, Pin, Post, Welcome
from examples.secure.notices import Notices
from wsrouter import WebSocketError, WebSocketHandler, on
from wsrouter.auth import Principal
from wsrouter.guards import RequireScopes

ROOM = "board"

may_write = RequireScopes("notes:write")
may_administer = RequireScopes("notes:admin")


@dataclass
class BoardHandler(WebSocketHandler):
    """Somebody at the board, on one of their devices."""

    notices: Annotated[Notices, Provide[Container.notices]]
    accounts: Annotated[Accounts, Provide[Container.accounts]]

    async def on_connect(self) -> Board:
        user: Principal = self.user
        await self.join(ROOM)
        await self.send(
            Welcome(
                connection=self.connection.id,
                name=user.id,
                scopes=sorted(user.scopes),
                credential="ticket" if "ticket" in self.connection.query_params else "cookie",
            )
        )
        return Board(notices=self.notices.all())

    @on(guards=[may_write])
    async def post(self, message: Post) -> None:
        self.notices.post(self.user.id, message.text)
        await self._show_all()

    @on(guards=[may_administer])
    async def pin(self, message: Pin) -> None:
        if not self.notices.pin(message.notice, message.pinned):
            raise WebSocketError("not_found", "This notice is gone")
        await self._show_all()

    @on(guards=[may_administer])
    async def clear(self, message: Clear) -> None:
        self.notices.clear()
        await self._show_all()

    @on(guards=[may_administer])
    async def list_accounts(self, message: ListAccounts) -> AccountList:
        return self._account_list()

    @on(guards=[may_administer])
    async def disable(self, message: Disable) -> AccountList:
        account = self.accounts.find(message.name)
        if account is None:
            raise WebSocketError("not_found", "There is no such account")
        if account.name == self.user.id:
            raise WebSocketError("conflict", "You can't disable yourself")
        # Nothing more: the next look at who may stay puts them out, whatever process they are connected to.
        account.disabled = message.disabled
        return self._account_list()

    async def _show_all(self) -> None:
        await self.broadcast(ROOM, Board(notices=self.notices.all()))

    def _account_list(self) -> AccountList:
        return AccountList(
            accounts=[
                AccountEntry(name=each.name, scopes=list(each.scopes), disabled=each.disabled) for each in self.accounts
            ]
        )
