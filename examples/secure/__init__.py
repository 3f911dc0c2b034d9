"""A notice board with sign-in: ``python -m examples.secure`` starts it and prints its address.

How somebody gets in, stays in, and is put out:

1. ``POST /api/sign-in`` takes name and password, and sets the **session cookie**: random, worth hours, known to the
   server by its hash, never visible to a script.
2. ``POST /api/token`` takes the session cookie and gives an **access token**: a JWT that is worth a minute. It comes
   as a cookie, for handshakes, and in the body, for ``$auth`` on a connection that is open. The page keeps neither.
3. The page connects to ``/ws/board``. Its credential is the access cookie, or a **ticket** from ``POST /api/ticket``:
   for pages whose cookies do not reach the socket, since it lives on another site.
4. Before the token expires, the page fetches the next and sends it with ``$auth``. Who does not is closed with 4519.
5. Every two seconds the server looks whether the session is still open and the account enabled.

For more than one process it takes tables in place of what `accounts`, `sessions` and `notices` keep in memory, a broker
for the hub, a ``RedisStore`` for the tickets, the ``limits`` package's ``RedisStorage``, and one ``BOARD_KEY`` for all.
Behind a proxy, ``--origin`` says where browsers find the page, and uvicorn's ``--forwarded-allow-ips`` whose word on
addresses is taken: limits count by them.

`settings` has what can be chosen, `api` the HTTP routes, `handler` the board, `access` who may come in and stay.
"""
