"""A meter that speaks Modbus: the 6934 and the 6944."""

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Any, Final, Self, override

from ..errors import (
    CommunicationError,
    InvalidRangeError,
    InvalidValueError,
    NotAcceptedError,
    NotAKlefrMeterError,
    RefusedError,
    WrongMeterError,
)
from ..link import BaudRate, Parity
from ..meter import Meter
from ..model import (
    LCD_CYCLE_TIMES,
    LOCKED_CODE,
    S0_RATES,
    WRITABLE_CODES,
    CalculationCode,
    Communication,
    Counter,
    Identity,
    Model,
    Quadrant,
    Quantity,
    Readings,
    Setting,
    Settings,
    SettingValue,
    Tariff,
)
from .line import ModbusLine
from .plan import Block, plan
from .registers import (
    ENERGY_REGISTERS,
    MEASUREMENT_REGISTERS,
    METER_REGISTERS,
    REGISTERS,
    Identifier,
    Register,
    WriteFunction,
)

MODBUS_ADDRESSES: Final = range(1, 248)

# What a request may read at most (Modbus application protocol, section 6.3).
LONGEST_READ: Final = 125
# The Modbus exceptions that a read gets for being too long, and one of what is no meter.
TOO_LONG: Final = frozenset({2, 3})
UNKNOWN_TO_IT: Final = frozenset({1, 2, 3})

# A transformer meter measures up to 6 A of its secondary current.
TRANSFORMER_METER_CURRENT: Final = 6

BLOCKS: Final = tuple(
    range(block[0].addresses.start, block[-1].addresses.stop)
    for block in (METER_REGISTERS, MEASUREMENT_REGISTERS, ENERGY_REGISTERS)
)
QUANTITIES: Final = frozenset(key for key in REGISTERS if isinstance(key, Quantity))
SETTINGS: Final = frozenset(key for key in REGISTERS if isinstance(key, Setting))

SERIAL_NUMBER: Final = REGISTERS[Identifier.SERIAL_NUMBER]

# What a KLEFR meter holds and hardly anything else does, at these addresses.
SIGNATURE: Final = (
    *Identifier,
    Setting.BAUD_RATE,
    Setting.PARITY,
    Setting.CALCULATION_CODE,
)

WRITABLE: Final[Mapping[Setting, Collection[SettingValue]]] = {
    Setting.TARIFF: Tariff,
    Setting.CALCULATION_CODE: WRITABLE_CODES,
    Setting.S0_RATE: S0_RATES,
    Setting.LCD_CYCLE_TIME: LCD_CYCLE_TIMES,
}
COMMUNICATION: Final[Mapping[Setting, Collection[SettingValue]]] = {
    Setting.ADDRESS: MODBUS_ADDRESSES,
    Setting.BAUD_RATE: BaudRate,
    Setting.PARITY: Parity,
}
COUNTERS: Final[Mapping[Counter, Quantity]] = {
    Counter.RESETTABLE: Quantity.RESETTABLE_COUNTER,
    Counter.POWER_DOWN: Quantity.POWER_DOWN_COUNTER,
}

type Key = Quantity | Setting | Identifier


class ModbusMeter(Meter):
    """A meter on a Modbus line, known by its serial number."""

    quantities = QUANTITIES
    settings = WRITABLE
    counters = frozenset(COUNTERS)
    registers = BLOCKS
    tells_settings = True

    def __init__(self, bus: ModbusLine, address: int) -> None:
        """Use `identify` instead: a meter is not known before it has been asked."""
        self._bus = bus
        self._address = address
        self._longest_read = LONGEST_READ
        self._longest_answered = 0
        self._maximum_current = 0.0

    @staticmethod
    async def is_answered(bus: ModbusLine, address: int, *, attempts: int = 1) -> bool:
        """Ask whether anybody answers at the address, or several at once. Raises LinkError."""
        return await bus.probe(
            address, SERIAL_NUMBER.address, SERIAL_NUMBER.form.length, attempts=attempts
        )

    @classmethod
    async def identify(cls, bus: ModbusLine, address: int) -> Self:
        """Ask who answers at the address.

        Raises NotAKlefrMeterError if it is something else, and what `Meter` raises.
        """
        meter = cls(bus, address)
        try:
            # Where nobody is, the shortest question finds out soonest.
            await meter._read_values((Identifier.SERIAL_NUMBER,))
            values = await meter._read_values(SIGNATURE)
        except RefusedError as err:
            if err.code not in UNKNOWN_TO_IT:
                raise
            raise NotAKlefrMeterError("It has no such registers") from err
        meter.identity = _identity(values)
        meter._maximum_current = _maximum_current(meter.identity)
        return meter

    @property
    @override
    def diagnostics(self) -> Mapping[str, Any]:
        return {
            "longest_read": self._longest_read,
            "longest_answered": self._longest_answered,
            "bus": dict(self._bus.tally),
        }

    @override
    async def read(self, quantities: Collection[Quantity]) -> Readings:
        values = await self._read_own_values(quantities)
        return {quantity: values[quantity] for quantity in quantities}

    @override
    async def read_settings(self) -> Settings:
        values = await self._read_own_values(SETTINGS)
        return {setting: values[setting] for setting in SETTINGS}

    @override
    async def write(self, setting: Setting, value: SettingValue) -> None:
        if value not in WRITABLE.get(setting, ()):
            raise InvalidValueError(f"{setting} may not be set to {value!r}")
        await self._set(setting, value)

    @override
    async def lock_calculation_code(self, serial_number: str) -> None:
        if serial_number != self.identity.serial_number:
            raise InvalidValueError(f"{serial_number!r} is not the meter's serial number")
        await self._set(Setting.CALCULATION_CODE, LOCKED_CODE)

    @override
    async def reset(self, counter: Counter) -> None:
        quantity = COUNTERS[counter]
        before = (await self._read_own_values((quantity,)))[quantity]
        await self._write(REGISTERS[quantity], 0)
        found = (await self._read_own_values((quantity,)))[quantity]
        # It may have counted on already.
        if found is None or (before and found >= before):
            raise NotAcceptedError(written=0, found=found)

    @override
    async def read_communication(self) -> Communication:
        values = await self._read_own_values(COMMUNICATION)
        link = self._bus.link
        return Communication(
            address=values[Setting.ADDRESS] or self._address,
            baud_rate=values[Setting.BAUD_RATE] or link.baud_rate,
            parity=values[Setting.PARITY] or link.parity,
        )

    @override
    async def write_communication(self, setting: Setting, value: SettingValue) -> None:
        if value not in COMMUNICATION.get(setting, ()):
            raise InvalidValueError(f"{setting} may not be set to {value!r}")
        await self._read_own_values(())
        await self._write(REGISTERS[setting], value)

    @override
    async def dump(self, registers: range | None = None) -> Mapping[str, Any]:
        blocks = BLOCKS if registers is None else (registers,)
        for asked in blocks:
            if not asked or not any(asked[0] in block and asked[-1] in block for block in BLOCKS):
                raise InvalidRangeError("The map has no such registers")
        addresses = frozenset(chain(*blocks))
        touched = [
            register
            for register in REGISTERS.values()
            if not addresses.isdisjoint(register.addresses)
        ]
        await self._read_own_values(())
        words = await self._read_words(touched)
        return {
            "registers": {
                f"0x{block[0]:04X}": [f"{words[address]:04X}" for address in block]
                for block in blocks
            },
            "values": {
                str(register.key): _plain(self._decode(register, words))
                for register in touched
                if addresses.issuperset(register.addresses)
            },
        }

    async def _set(self, setting: Setting, value: SettingValue) -> None:
        await self._read_own_values(())
        await self._write(REGISTERS[setting], value)
        found = (await self._read_own_values((setting,)))[setting]
        if found != value:
            raise NotAcceptedError(written=value, found=found)

    async def _read_own_values(self, keys: Collection[Key]) -> Mapping[Key, Any]:
        """Read values together with the serial number that says whose they are."""
        values = await self._read_values((Identifier.SERIAL_NUMBER, *keys))
        serial_number = values[Identifier.SERIAL_NUMBER]
        if serial_number != self.identity.serial_number:
            raise WrongMeterError(expected=self.identity.serial_number, found=serial_number)
        return values

    async def _read_values(self, keys: Iterable[Key]) -> Mapping[Key, Any]:
        wanted = {key: REGISTERS[key] for key in keys}
        words = await self._read_words(wanted.values())
        return {key: self._decode(register, words) for key, register in wanted.items()}

    def _decode(self, register: Register, words: Mapping[int, int]) -> Any:
        return register.decode(
            [words[address] for address in register.addresses], self._maximum_current
        )

    async def _read_words(self, registers: Collection[Register]) -> Mapping[int, int]:
        """Read words, by address, in as few requests as possible."""
        words: dict[int, int] = {}
        while missing := [register for register in registers if register.address not in words]:
            block = plan(missing, self._longest_read)[0]
            try:
                found = await self._bus.read_registers(self._address, block.address, block.count)
            except (RefusedError, CommunicationError) as err:
                if not await self._is_too_long(block, err):
                    raise
                self._longest_read = max(block.count // 2, self._longest_answered)
            else:
                words.update(enumerate(found, block.address))
                self._longest_answered = max(self._longest_answered, block.count)
        return words

    async def _is_too_long(self, block: Block, error: RefusedError | CommunicationError) -> bool:
        """Tell whether a shorter read may succeed where this one failed."""
        if block.count <= max(self._longest_answered, SERIAL_NUMBER.form.length):
            return False
        if isinstance(error, RefusedError):
            return error.code in TOO_LONG
        # Silence has other reasons more often: only a meter that answers to the shortest
        # question can have been asked for too much.
        try:
            await self._bus.read_registers(
                self._address, SERIAL_NUMBER.address, SERIAL_NUMBER.form.length
            )
        except CommunicationError:
            return False
        return True

    async def _write(self, register: Register, value: SettingValue) -> None:
        assert register.form.encode is not None
        words = register.form.encode(value)
        if register.write is WriteFunction.SINGLE:
            await self._bus.write_register(self._address, register.address, words[0])
        else:
            await self._bus.write_registers(self._address, register.address, words)


def _identity(values: Mapping[Key, Any]) -> Identity:
    """Make sure that these registers are those of a KLEFR meter, and say which it is."""
    serial_number: str = values[Identifier.SERIAL_NUMBER]
    doubtful = [key for key, value in values.items() if value is None]
    if doubtful or not serial_number.isdecimal() or not int(serial_number):
        raise NotAKlefrMeterError(f"Its registers hold no {', '.join(doubtful) or 'serial number'}")
    ratio: int = values[Identifier.CT_RATIO]
    rated_current: int = values[Identifier.RATED_CURRENT]
    transformers = ratio > 0 or rated_current <= TRANSFORMER_METER_CURRENT
    return Identity(
        serial_number=serial_number,
        model=Model.KLEFR_6944 if transformers else Model.KLEFR_6934,
        meter_code=values[Identifier.METER_CODE],
        protocol_version=values[Identifier.PROTOCOL_VERSION],
        firmware_version=values[Identifier.FIRMWARE_VERSION],
        hardware_version=values[Identifier.HARDWARE_VERSION],
        checksum=values[Identifier.CHECKSUM],
        rated_current=rated_current,
        transformer_primary_current=ratio if transformers and ratio else None,
        transformer_secondary_current=values[Identifier.CT_MODE]
        if transformers and ratio
        else None,
    )


def _plain(value: Any) -> Any:
    """Give a value as JSON has it: choices by name, everything else as it is."""
    match value:
        case Tariff() | CalculationCode() | Quadrant():
            return value.name.lower()
        case IntEnum() | StrEnum():
            return value.value
    return value


def _maximum_current(identity: Identity) -> float:
    """Give the greatest current in A that the meter's readings can mean."""
    if not (primary := identity.transformer_primary_current):
        return identity.rated_current or 0
    return primary * TRANSFORMER_METER_CURRENT / (identity.transformer_secondary_current or 1)
