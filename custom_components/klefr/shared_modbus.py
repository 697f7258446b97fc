"""Read meters through the Modbus connections that Home Assistant itself shares out.

Integrations for other Modbus devices may be on the same bus. Those that let Home Assistant
(2026.9 and later) open its port leave nothing to be opened here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, override

from homeassistant.components.modbus import async_get_temporary_unit
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

from .meter import (
    BaudRate,
    CommunicationError,
    GarbledAnswerError,
    LineSettingsError,
    LinkError,
    ModbusLine,
    NoAnswerError,
    Parity,
    Protocol,
    RefusedError,
    SerialLink,
    gateway_port,
    is_gateway,
)
from .meter.bus import OVERDUE

PARITIES: Final = {"E": Parity.EVEN, "N": Parity.NONE, "O": Parity.ODD}
PROTOCOLS: Final[Mapping[str | None, Protocol]] = {
    "rtu": Protocol.MODBUS,
    "socket": Protocol.MODBUS_TCP,
}

# What a unit that is there may take to answer a probe, in seconds, with a request of another
# integration in front of it. The connection itself would wait for 10 seconds.
PROBE_PATIENCE: Final = 1.0

type Params = ModbusSerialParams | ModbusTcpParams


@callback
def async_shared_bus(hass: HomeAssistant, link: SerialLink) -> SharedModbusBus | None:
    """Return the bus on a port that Home Assistant holds, if a meter can be on it.

    A gateway has been set by itself: that it is at the other end of the link is enough.
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
    """The Modbus units on a link that Home Assistant opens, and keeps open while this is held."""

    def __init__(
        self, hass: HomeAssistant, protocol: Protocol, link: SerialLink, params: Params
    ) -> None:
        """Remember how Home Assistant knows the link."""
        super().__init__(link)
        self.protocol = protocol
        self._hass = hass
        self._params = params
        self._units: dict[int, ModbusUnit] = {}
        self._lent = AsyncExitStack()
        self._heard: set[int] = set()
        self._overdue: dict[int, float] = {}

    @override
    async def read_registers(self, unit: int, address: int, count: int) -> Sequence[int]:
        return await self._request(unit, lambda lent: lent.read_holding_registers(address, count))

    @override
    async def probe(self, unit: int, address: int, count: int, *, attempts: int) -> bool:
        patience = PROBE_PATIENCE + (13 + 2 * count) * self.link.character_time
        for _ in range(attempts):
            try:
                async with self._turn, asyncio.timeout(patience):
                    await self._exchange(
                        unit, lambda lent: lent.read_holding_registers(address, count)
                    )
            except NoAnswerError:
                continue
            except TimeoutError as err:
                if not self._units[unit].connected:
                    raise LinkError("The link is not open yet") from err
                continue
            except GarbledAnswerError, RefusedError:
                pass
            return True
        return False

    @override
    async def write_register(self, unit: int, address: int, word: int) -> None:
        await self._request(unit, lambda lent: lent.write_register(address, word))

    @override
    async def write_registers(self, unit: int, address: int, words: Sequence[int]) -> None:
        await self._request(unit, lambda lent: lent.write_registers(address, list(words)))

    async def _request[T](self, unit: int, call: Callable[[ModbusUnit], Awaitable[T]]) -> T:
        """Ask a unit, and once more if it answered the last time.

        While nobody answers, or only noise does, all others on the line wait for long.
        """
        async with self._turn:
            # An answer that was given up could be taken for one to the next request.
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._overdue.pop(unit, 0.0) - loop.time())
            if unit in self._heard:
                self._heard.remove(unit)
                with suppress(CommunicationError):
                    return await self._exchange(unit, call)
            return await self._exchange(unit, call)

    async def _exchange[T](self, unit: int, call: Callable[[ModbusUnit], Awaitable[T]]) -> T:
        await self._open()
        if unit not in self._units:
            try:
                self._units[unit] = await self._lent.enter_async_context(
                    async_get_temporary_unit(self._hass, self._params, unit)
                )
            except HomeAssistantError as err:
                raise LineSettingsError(str(err)) from err
        lent = self._units[unit]
        self.tally["requests"] += 1
        try:
            answer = await call(lent)
        except (ModbusError, OSError) as err:
            failure: LinkError | CommunicationError | RefusedError
            match err:
                case GatewayPathUnavailableError() | GatewayTargetError():
                    failure = NoAnswerError("The gateway got no answer")
                case ModbusExceptionError():
                    failure = RefusedError(err.exception_code or 0)
                case ModbusTimeoutError() if lent.connected:
                    failure = NoAnswerError("Nobody answered")
                    self._overdue[unit] = asyncio.get_running_loop().time() + OVERDUE
                case ModbusTimeoutError() | ModbusConnectionError() | OSError():
                    failure = LinkError(str(err))
                case _:
                    failure = GarbledAnswerError(str(err))
            self.tally[failure.key] += 1
            raise failure from err
        self._heard.add(unit)
        return answer

    @override
    async def _open(self) -> None:
        if not self.held:
            raise LinkError("The bus has been released")

    @override
    async def _close(self) -> None:
        self._units.clear()
        await self._lent.aclose()
