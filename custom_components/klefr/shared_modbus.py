"""Reach meters through the Modbus connections that Home Assistant itself shares.

Other Modbus devices may be on the same bus. If their integrations let Home Assistant (2026.9 and
later) open the port, it is open already.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, override

from homeassistant.components.modbus import async_get_temporary_unit, async_get_unit
from homeassistant.components.modbus.connection import DATA_MODBUS_CONNECTIONS
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from modbus_connection import (
    GatewayPathUnavailableError,
    GatewayTargetError,
    ModbusConnectionError,
    ModbusError,
    ModbusExceptionError,
    ModbusSerialParams,
    ModbusTcpParams,
    ModbusTimeoutError,
    ModbusUnit,
)

from .coordinator import KlefrConfigEntry
from .meter import (
    BaudRate,
    CommunicationError,
    GarbledAnswerError,
    LinkError,
    ModbusLine,
    NoAnswerError,
    Parity,
    PortInUseError,
    Protocol,
    RefusedError,
    SerialLink,
    gateway_port,
    is_gateway,
)
from .meter.bus import LATE
from .meter.modbus.plan import Block

PARITIES: Final = {"E": Parity.EVEN, "N": Parity.NONE, "O": Parity.ODD}
PROTOCOLS: Final[Mapping[str | None, Protocol]] = {
    "rtu": Protocol.MODBUS,
    "socket": Protocol.MODBUS_TCP,
}

PROBE_TIMEOUT: Final = 1.0
"""Seconds for the answer to a probe, also behind a request of another integration. The connection
would wait for 10 seconds."""

type Params = ModbusSerialParams | ModbusTcpParams


@callback
def async_shared_bus(hass: HomeAssistant, link: SerialLink) -> SharedModbusBus | None:
    """Return the bus on the link's port if Home Assistant has opened it and meters can be on it.

    Home Assistant does not know the line settings of a gateway, so they are taken to be right.
    """
    for shared in hass.data[DATA_MODBUS_CONNECTIONS].values():
        params = shared.params
        if isinstance(params, ModbusSerialParams):
            port = params.device
        elif isinstance(params, ModbusTcpParams):
            port = gateway_port(params.host, params.port)
        else:
            continue
        protocol = PROTOCOLS.get(params.framer)
        if protocol is None:
            continue
        if is_gateway(port):
            if port.lower() == link.port.lower():
                return SharedModbusBus(hass, protocol, link, params)
        elif (
            port == link.port
            and isinstance(params, ModbusSerialParams)
            and params.baudrate in BaudRate
            and (params.bytesize, params.stopbits) == (8, 1)
        ):
            in_force = SerialLink(
                port=port, baud_rate=BaudRate(params.baudrate), parity=PARITIES[params.parity]
            )
            return SharedModbusBus(hass, protocol, in_force, params)
    return None


class SharedModbusBus(ModbusLine):
    """A bus whose connection Home Assistant opens, and keeps open while the bus is held."""

    def __init__(
        self, hass: HomeAssistant, protocol: Protocol, link: SerialLink, params: Params
    ) -> None:
        """Keep the parameters by which Home Assistant shares the connection."""
        super().__init__(link)
        self.protocol = protocol
        self._hass = hass
        self._params = params
        self._shared_units: dict[int, ModbusUnit] = {}
        self._borrowed = AsyncExitStack()
        self._answered_last: set[int] = set()
        self._late_until: dict[int, float] = {}

    def hold_unit(self, entry: KlefrConfigEntry, unit: int) -> None:
        """Hold a unit until its entry unloads. Raises PortInUseError.

        Home Assistant then shows the entry among those that use the connection.
        """
        try:
            self._shared_units[unit] = async_get_unit(self._hass, entry, self._params, unit)
        except HomeAssistantError as err:
            raise PortInUseError(str(err)) from err

        @callback
        def forget() -> None:
            self._shared_units.pop(unit, None)

        entry.async_on_unload(forget)

    @override
    async def read_registers(
        self, unit: int, address: int, count: int, *, attempts: int | None = None
    ) -> Sequence[int]:
        loop = asyncio.get_running_loop()
        frames = Block(start=address, stop=address + count).characters * self.link.character_time

        async def read(shared: ModbusUnit) -> Sequence[int]:
            began = loop.time()
            words = await shared.read_holding_registers(address, count)
            self._delays[unit].append(loop.time() - began - frames)
            return words

        # How often to ask depends on how long the other users of the link would have to wait.
        return await self._request(unit, read)

    @override
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        timeout = PROBE_TIMEOUT + (13 + 2 * count) * self.link.character_time
        for _ in range(attempts):
            try:
                async with self._turn, asyncio.timeout(timeout):
                    await self._exchange(
                        unit, lambda shared: shared.read_holding_registers(address, count)
                    )
            except NoAnswerError:
                continue
            except TimeoutError as err:
                if not self._shared_units[unit].connected:
                    raise LinkError("The link is not open yet") from err
                continue
            except GarbledAnswerError, RefusedError:
                pass
            return True
        return False

    @override
    async def write_register(self, unit: int, address: int, word: int) -> None:
        await self._request(unit, lambda shared: shared.write_register(address, word))

    @override
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        await self._request(unit, lambda shared: shared.write_registers(address, list(words)))

    async def _request[T](self, unit: int, call: Callable[[ModbusUnit], Awaitable[T]]) -> T:
        """Send a request to a unit, and repeat it once if the unit answered the last one.

        A unit that did not answer the last time gets one request only, because all other devices
        on the bus wait with it.
        """
        async with self._turn:
            # A late answer to the last request could be taken for the answer to this one.
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._late_until.pop(unit, 0.0) - loop.time())
            if unit in self._answered_last:
                self._answered_last.remove(unit)
                with suppress(CommunicationError):
                    return await self._exchange(unit, call)
            return await self._exchange(unit, call)

    async def _exchange[T](self, unit: int, call: Callable[[ModbusUnit], Awaitable[T]]) -> T:
        await self._open()
        if unit not in self._shared_units:
            try:
                self._shared_units[unit] = await self._borrowed.enter_async_context(
                    async_get_temporary_unit(self._hass, self._params, unit)
                )
            except HomeAssistantError as err:
                raise PortInUseError(str(err)) from err
        shared = self._shared_units[unit]
        with self._observed(unit) as attempt:
            try:
                answer = await call(shared)
            except (ModbusError, OSError) as err:
                match err:
                    case GatewayPathUnavailableError() | GatewayTargetError():
                        raise NoAnswerError("The gateway got no answer") from err
                    case ModbusExceptionError():
                        raise RefusedError(err.exception_code or 0) from err
                    case ModbusTimeoutError() if shared.connected:
                        self._late_until[unit] = asyncio.get_running_loop().time() + LATE
                        raise NoAnswerError("No meter answered") from err
                    case ModbusTimeoutError() | ModbusConnectionError() | OSError():
                        raise LinkError(str(err)) from err
                    case _:
                        raise GarbledAnswerError(str(err)) from err
            attempt.response_time = asyncio.get_running_loop().time() - attempt.sent_at
        self._answered_last.add(unit)
        return answer

    @override
    async def _open(self) -> None:
        if not self.held:
            raise LinkError("The bus has been released")

    @override
    async def _close(self) -> None:
        self._shared_units.clear()
        await self._borrowed.aclose()
