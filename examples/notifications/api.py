"""The HTTP routes: notify somebody, and ask the worker for an export."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, StringConstraints

from examples.notifications import storage
from examples.notifications.container import Container
from examples.sign_in import SignIn
from wsrouter.auth import Principal

Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Letter(BaseModel):
    """A notification for somebody.

    Attributes:
        key: Made up by the page, one for each letter; one that is posted again is stored once.
    """

    key: Key
    to: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Order(BaseModel):
    """The wish for an export."""

    key: Key


def create_api(container: Container, sign_in: SignIn) -> APIRouter:
    """Return ``POST /notifications`` and ``POST /exports``, for who has signed in at the page."""
    routes = APIRouter(dependencies=[Depends(sign_in.origins)])
    notifier, sessions = container.notifier(), container.sessions()

    @routes.post("/notifications", status_code=204)
    async def notify(letter: Letter, user: Annotated[Principal, Depends(sign_in.auth)]) -> None:
        await notifier.notify(letter.to, letter.text, key=f"{user.id} {letter.key}", sender=user.id)

    @routes.post("/exports", status_code=202)
    async def export(order: Order, user: Annotated[Principal, Depends(sign_in.auth)]) -> Order:
        async with sessions() as session:
            await storage.order_export(session, user.id, order.key)
        return order

    return routes
