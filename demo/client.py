"""Home Assistant's own API, the one its user interface uses."""

from asyncio import Lock
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, WSMessageTypeError

from . import DemoError

NAME = "Demo"
USERNAME = PASSWORD = "demo"  # noqa: S105
TIMEOUT = 60


class Client:
    """A user who has signed in."""

    def __init__(self, session: ClientSession, socket: ClientWebSocketResponse, token: str) -> None:
        self._session = session
        self._socket = socket
        self._headers = {"Authorization": f"Bearer {token}"}
        self._commands = 0
        self._turn = Lock()

    async def get(self, path: str) -> Any:
        """Ask one of the addresses below /api."""
        return await _ask(self._session, "GET", f"/api/{path}", headers=self._headers)

    async def post(self, path: str, data: dict[str, Any]) -> Any:
        """Send to one of the addresses below /api."""
        return await _ask(self._session, "POST", f"/api/{path}", json=data, headers=self._headers)

    async def command(self, command: str, **fields: Any) -> Any:
        """Send a websocket command and wait for its result: one at a time."""
        async with self._turn:
            self._commands += 1
            await self._socket.send_json({"id": self._commands, "type": command, **fields})
            try:
                answer = await self._socket.receive_json(timeout=TIMEOUT)
            except WSMessageTypeError:
                raise DemoError(f"Home Assistant hung up on {command}.") from None
        if not answer["success"]:
            raise DemoError(f"Home Assistant refused {command}: {answer['error']['message']}")
        return answer["result"]

    async def call(self, service: str, entity_id: str, **data: Any) -> None:
        """Call a service on an entity."""
        domain, name = service.split(".")
        fields = {"domain": domain, "service": name, "service_data": data}
        await self.command("call_service", **fields, target={"entity_id": entity_id})

    async def ask(self, service: str, entity_id: str, **data: Any) -> Any:
        """Call a service that responds, on an entity."""
        domain, name = service.split(".")
        fields = {"domain": domain, "service": name, "service_data": data}
        result = await self.command(
            "call_service", **fields, target={"entity_id": entity_id}, return_response=True
        )
        return result["response"]

    async def states(self) -> dict[str, dict[str, Any]]:
        """Every entity's state, by its id."""
        return {state["entity_id"]: state for state in await self.command("get_states")}


@asynccontextmanager
async def first_user(url: str, language: str = "en") -> AsyncIterator[Client]:
    """Make the first user, as the welcome page would, and sign in."""
    async with ClientSession(url, timeout=ClientTimeout(total=TIMEOUT)) as session:
        application = {"client_id": f"{url}/"}
        user = {"name": NAME, "username": USERNAME, "password": PASSWORD, "language": language}
        created = await _ask(session, "POST", "/api/onboarding/users", json=user | application)
        grant = {"grant_type": "authorization_code", "code": created["auth_code"]}
        token = (await _ask(session, "POST", "/auth/token", data=grant | application))[
            "access_token"
        ]
        async with session.ws_connect("/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json()
            await socket.send_json({"type": "auth", "access_token": token})
            await socket.receive_json()
            client = Client(session, socket, token)
            # Without this the frontend has the language of the browser.
            await client.command(
                "frontend/set_user_data", key="language", value={"language": language}
            )
            yield client


async def _ask(session: ClientSession, method: str, path: str, **request: Any) -> Any:
    async with session.request(method, path, **request) as response:
        if response.status >= HTTPStatus.BAD_REQUEST:
            answer = await response.text()
            raise DemoError(f"Home Assistant refused {path}: {response.status} {answer}")
        return await response.json()
