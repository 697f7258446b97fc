"""A meter's Modbus face: what a request does, and how it travels."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from enum import StrEnum
from pathlib import Path

from tmodbus.const import BROADCAST_UNIT_ID, EXCEPTION_RESPONSE_BIT, ExceptionCode, FunctionCode
from tmodbus.exceptions import (
    IllegalDataAddressError,
    IllegalDataValueError,
    InvalidRequestError,
    SuppressResponseError,
)
from tmodbus.pdu import ReadHoldingRegistersPDU, WriteMultipleRegistersPDU, WriteSingleRegisterPDU
from tmodbus.server import ModbusRequestRouter
from tmodbus.server.base import build_decode_error_response, get_server_pdu_class
from tmodbus.server.handler import handle_modbus_request
from tmodbus.utils.crc import calculate_crc16, validate_crc16

from .line import Line
from .meter import Parity, VirtualMeter
from .ports import open_line
from .registers import IllegalAddressError, IllegalValueError, NoAnswerError, Registers

SHORTEST_FRAME = 4  # bytes: address, function, checksum
MBAP_LENGTH_END = 6  # bytes: transaction, protocol, length of what follows


class Framing(StrEnum):
    """How requests are packed."""

    RTU = "rtu"
    SOCKET = "socket"
    """Modbus TCP."""


@contextmanager
def _as_exceptions(function: FunctionCode) -> Iterator[None]:
    """Turn what a meter refuses into Modbus exceptions."""
    try:
        yield
    except IllegalAddressError as error:
        raise IllegalDataAddressError(function) from error
    except IllegalValueError as error:
        raise IllegalDataValueError(function) from error
    except NoAnswerError as error:
        raise SuppressResponseError from error


def _functions(meter: VirtualMeter) -> ModbusRequestRouter:
    """Return the functions a meter has. It refuses all others."""
    router = ModbusRequestRouter()
    registers = Registers(meter)

    @router.register(ReadHoldingRegistersPDU)
    async def read(_unit: int, request: ReadHoldingRegistersPDU) -> list[int]:
        with _as_exceptions(request.function_code):
            return registers.read(request.start_address, request.quantity)

    @router.register(WriteSingleRegisterPDU)
    async def write_single(_unit: int, request: WriteSingleRegisterPDU) -> int:
        with _as_exceptions(request.function_code):
            registers.write(request.function_code, request.address, [request.value])
        return request.value

    @router.register(WriteMultipleRegistersPDU)
    async def write_multiple(_unit: int, request: WriteMultipleRegistersPDU) -> int:
        with _as_exceptions(request.function_code):
            registers.write(request.function_code, request.start_address, request.values)
        return len(request.values)

    return router


class ModbusFace:
    """Meters that answer Modbus requests on one line."""

    def __init__(self, meters: Sequence[VirtualMeter], framing: Framing) -> None:
        """Connect meters, with the framing that clients use."""
        self._meters = [(meter, _functions(meter)) for meter in meters]
        self._framing = framing

    async def hear(self, frame: bytes, line: Line) -> bytes:
        """Act on a frame and return the answer, empty for none.

        An answer carries the address of its request, so a new address is in force only
        from the next request on.
        """
        if self._framing is Framing.SOCKET:
            return await self._hear_socket(frame, line)
        if len(frame) < SHORTEST_FRAME or not validate_crc16(frame):
            return b""
        unit = frame[:1]
        return line.collide(
            [
                unit + pdu + calculate_crc16(unit + pdu)
                for pdu in await self._answers(frame[0], frame[1:-2], line)
            ]
        )

    async def _hear_socket(self, frame: bytes, line: Line) -> bytes:
        transaction, unit, pdu = frame[:4], frame[MBAP_LENGTH_END], frame[MBAP_LENGTH_END + 1 :]
        answers = await self._answers(unit, pdu, line)
        if answers:
            answer = answers[0]
        elif unit == BROADCAST_UNIT_ID or line.silent:
            return b""
        else:
            answer = bytes(
                [
                    pdu[0] | EXCEPTION_RESPONSE_BIT,
                    ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND,
                ]
            )
        return transaction + (len(answer) + 1).to_bytes(2) + bytes([unit]) + answer

    async def _answers(self, unit: int, pdu: bytes, line: Line) -> list[bytes]:
        """Return what the meters that hear a request have to say."""
        # Which meters are meant is settled before one of them takes a new address.
        meant = [
            functions
            for meter, functions in self._meters
            if meter.powered
            and unit in (meter.address, BROADCAST_UNIT_ID)
            and line.reaches(meter.baud_rate, meter.parity)
        ]
        answers = [await _answer(unit, pdu, functions) for functions in meant]
        return [answer for answer in answers if answer and unit != BROADCAST_UNIT_ID]


async def _answer(unit: int, pdu: bytes, functions: ModbusRequestRouter) -> bytes:
    try:
        request = get_server_pdu_class(pdu).decode_request(pdu)
    except (ValueError, InvalidRequestError) as error:
        return build_decode_error_response(pdu[0], error)
    return await handle_modbus_request(unit, request, functions)


def _split_socket(received: bytearray) -> Iterator[bytes]:
    """Take whole Modbus TCP frames off the front of what was received."""
    while len(received) > MBAP_LENGTH_END + 1:
        end = MBAP_LENGTH_END + int.from_bytes(received[4:MBAP_LENGTH_END])
        if end <= MBAP_LENGTH_END + 1:  # too short to be a request, so out of step
            received.clear()
        if len(received) < end:
            return
        yield bytes(received[:end])
        del received[:end]


def serve(
    *meters: VirtualMeter,
    baud_rate: int | None = None,
    parity: Parity | str | None = None,
    pacing: bool = True,
    link: str | Path | None = None,
    tcp: tuple[str, int] | None = None,
    virtual: str | None = None,
    framing: Framing | str = Framing.RTU,
    seed: int = 1,
) -> AbstractAsyncContextManager[Line]:
    """Connect meters to a line while the context is open.

    The line is a pseudo-terminal, with `link` as a link to it, or a gateway listening
    on `tcp`, a host and a port. With `virtual` it is in memory: a serial port, called
    `virtual://` and any name, or a gateway, called `socket://` and any host and port. `baud_rate` and `parity` are set on the meters first;
    without them the line runs as the first meter is set.
    """
    for meter in meters:
        meter.baud_rate = baud_rate or meter.baud_rate
        meter.parity = Parity(parity or meter.parity)
    framing = Framing(framing)
    return open_line(
        ModbusFace(meters, framing),
        baud_rate=meters[0].baud_rate,
        parity=meters[0].parity,
        pacing=pacing,
        link=link,
        tcp=tcp,
        virtual=virtual,
        split=_split_socket if framing is Framing.SOCKET else None,
        seed=seed,
    )
