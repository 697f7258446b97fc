"""A meter that speaks Modbus: the 6934, the 6944 and their family."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum, StrEnum
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Self, override

from ..errors import (
    CommunicationError,
    GarbledAnswerError,
    InvalidRangeError,
    InvalidValueError,
    NotAcceptedError,
    NotAKlefrMeterError,
    NotResetError,
    RefusedError,
    WrongConfirmationError,
)
from ..family import MEMBERS, QUANTITIES, model_of
from ..link import BaudRate, Parity
from ..meter import Meter, check_serial_number, confirmed
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
    Reading,
    Setting,
    Settings,
    SettingValue,
    Tariff,
)
from ..relations import GUARDED, TOTALS, parts_of
from .bus import ModbusLine
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

# The Modbus exceptions of a read that the meter cannot answer in one piece, and those of a
# device that is no meter.
NOT_IN_ONE_PIECE: Final = frozenset({2, 3})
NO_SUCH_REGISTERS: Final = frozenset({1, 2, 3})

# How often to ask whether a piece can be read. One lost answer must not be taken for a cut.
PIECE_ATTEMPTS: Final = 2

MEMORY_FIRMWARE: Final = "firmware_version"
MEMORY_CUTS: Final = "cuts"

# A meter has a few plans for what is due at a time, and others for each of its usual delays.
PLANS_KEPT: Final = 1024

type Key = Quantity | Setting | Identifier

BLOCKS: Final = tuple(
    range(block[0].addresses.start, block[-1].addresses.stop)
    for block in (METER_REGISTERS, MEASUREMENT_REGISTERS, ENERGY_REGISTERS)
)
ENERGY_BLOCK: Final = BLOCKS[-1]
READABLE: Final = frozenset(key for key in REGISTERS if isinstance(key, Quantity))
SETTINGS: Final = frozenset(key for key in REGISTERS if isinstance(key, Setting))

# What shows for how many phases a meter is whose code is not known.
VOLTAGES_OF_THREE_PHASES: Final = (
    Quantity.VOLTAGE_L1,
    Quantity.VOLTAGE_L2,
    Quantity.VOLTAGE_L3,
)

# What energies are checked with.
CHECKED: Final[frozenset[Key]] = frozenset((*GUARDED, Setting.CALCULATION_CODE))

# Where the values begin: the only places where a read can be cut.
VALUE_STARTS: Final = sorted(register.address for register in REGISTERS.values())

SERIAL_NUMBER: Final = REGISTERS[Identifier.SERIAL_NUMBER]
IDENTIFIED: Final = (Identifier.SERIAL_NUMBER,)
SERIAL_NUMBER_BLOCK: Final = Block(start=SERIAL_NUMBER.address, stop=SERIAL_NUMBER.addresses.stop)

# What decides which currents, and so which powers, the meter's readings can mean. It is set on the
# meter's buttons, maybe long after the meter was added.
CURRENT_RANGE: Final = (Identifier.CT_RATIO, Identifier.CT_MODE, Identifier.RATED_CURRENT)

TRANSFORMER_SECONDARY_CURRENTS: Final = (1, 5)
"""A. What transformers for these meters give."""

# What decides what the meter measures at all, and in which range.
KIND: Final = (Identifier.METER_CODE, *CURRENT_RANGE)

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


class ModbusMeter(Meter):
    """A meter on a Modbus line, known by its serial number."""

    settings = WRITABLE
    counters = frozenset(COUNTERS)
    registers = BLOCKS
    reports_settings = True
    all_at_once = False

    def __init__(self, bus: ModbusLine, address: int, cuts: frozenset[int]) -> None:
        """Use `identify` instead: a meter is not known before it has been asked."""
        self._bus = bus
        self._address = address
        self._cuts = cuts
        self._answered_last = False
        self._energies_read: list[tuple[Block, float]] = []
        """The blocks with energies that were read last, and when."""
        self._maximum_current = 0.0

    @staticmethod
    async def is_answered(bus: ModbusLine, address: int, *, attempts: int = 1) -> bool:
        """Ask whether a device answers at the address, or several at once. Raises LinkError."""
        return await bus.probe(
            address, SERIAL_NUMBER.address, SERIAL_NUMBER.form.length, attempts=attempts
        )

    @classmethod
    async def identify(
        cls, bus: ModbusLine, address: int, *, memory: Mapping[str, Any] | None = None
    ) -> Self:
        """Ask which meter answers at the address.

        `memory` is what the same meter remembered before. Raises NotAKlefrMeterError if it is
        something else, and what `Meter` raises.
        """
        remembered = memory or {}
        meter = cls(bus, address, _cuts_from(remembered))
        try:
            values = await meter._read_values(SIGNATURE)
        except RefusedError as err:
            if err.code not in NO_SUCH_REGISTERS:
                raise
            raise NotAKlefrMeterError("It has no such registers") from err
        meter._set_identity(_identity(values))
        # All readings are judged by it, and a checksum does not see all damage.
        if not _is_current_range(values) or not await meter._confirms(values, KIND):
            raise GarbledAnswerError("Two answers report different kinds of meters, or none")
        if meter.identity.model is Model.UNKNOWN:
            meter._set_identity(replace(meter.identity, phases=await meter._read_phases()))
        if meter.identity.firmware_version != remembered.get(MEMORY_FIRMWARE):
            # Another firmware may need no cuts, or others.
            meter._cuts -= _cuts_from(remembered)
        return meter

    @property
    @override
    def memory(self) -> Mapping[str, Any]:
        return {
            MEMORY_FIRMWARE: self.identity.firmware_version,
            MEMORY_CUTS: sorted(self._cuts),
        }

    @property
    @override
    def diagnostics(self) -> Mapping[str, Any]:
        return {
            "cuts": [f"0x{cut:04X}" for cut in sorted(self._cuts)],
            "bus": dict(self._bus.tally),
        }

    @override
    async def read_along(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> Reading:
        wanted = _wanted(quantities, settings, identified=identified)
        along = _readable_along(wanted, self._cuts, self._pause) & {*self.quantities, *SETTINGS}
        self._energies_read.clear()
        values = await self._read_own_values(wanted | along)
        await self._take_current_range(values)
        return Reading(
            values={key: value for key, value in values.items() if isinstance(key, Quantity)},
            settings={key: value for key, value in values.items() if isinstance(key, Setting)},
            spread=self._spread,
        )

    @override
    def line_time(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> float:
        wanted = _wanted(quantities, settings, identified=identified)
        pause = self._pause
        blocks = _plan_for(wanted, self._cuts, pause)
        characters = sum(block.characters + pause for block in blocks)
        return characters * self._bus.link.character_time

    @override
    async def read_settings(self) -> Settings:
        return (await self.read_along((), settings=SETTINGS)).settings

    @override
    async def write(self, setting: Setting, value: SettingValue) -> None:
        if value not in WRITABLE.get(setting, ()):
            raise InvalidValueError(setting, value)
        await self._set(setting, value)

    @override
    async def lock_calculation_code(self, serial_number: str) -> None:
        if serial_number != self.identity.serial_number:
            raise WrongConfirmationError("The meter has another serial number")
        await self._set(Setting.CALCULATION_CODE, LOCKED_CODE)

    @override
    async def reset(self, counter: Counter) -> None:
        quantity = COUNTERS[counter]
        before = (await self._read_own_values((*IDENTIFIED, quantity)))[quantity]
        await self._write(REGISTERS[quantity], 0)
        found = (await self._read_own_values((*IDENTIFIED, quantity)))[quantity]
        # It may have counted on already.
        if found is None or (before and found >= before):
            raise NotResetError(counter, found=found)

    @override
    async def read_communication(self) -> Communication:
        values = await self._read_own_values((*IDENTIFIED, *COMMUNICATION))
        link = self._bus.link
        return Communication(
            address=values[Setting.ADDRESS] or self._address,
            baud_rate=values[Setting.BAUD_RATE] or link.baud_rate,
            parity=values[Setting.PARITY] or link.parity,
        )

    @override
    async def write_communication(self, setting: Setting, value: SettingValue) -> None:
        if value not in COMMUNICATION.get(setting, ()):
            raise InvalidValueError(setting, value)
        await self._read_own_values(IDENTIFIED)
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
        await self._read_own_values(IDENTIFIED)
        words = await self._read_blocks(plan(touched, self._cuts, pause=self._pause))
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

    async def _read_phases(self) -> int:
        """Return for how many phases the meter is, as its voltages show."""
        voltages = await self._read_own_values((Quantity.VOLTAGE, *VOLTAGES_OF_THREE_PHASES))
        of_three_phases = any(voltages[voltage] for voltage in VOLTAGES_OF_THREE_PHASES)
        return 1 if voltages[Quantity.VOLTAGE] and not of_three_phases else 3

    @property
    def _spread(self) -> float:
        """Seconds between the first and the last answer with energies; 0 for one answer."""
        if len(self._energies_read) <= 1:
            return 0.0
        (first, first_read_at), *_, (_, last_read_at) = self._energies_read
        # The meter knew the first values before it sent them.
        return last_read_at - first_read_at + first.characters * self._bus.link.character_time

    @property
    def _pause(self) -> int:
        """What a request costs beside its frames, in characters."""
        seconds = self._bus.silence + self._bus.delay(self._address)
        return round(seconds / self._bus.link.character_time)

    def _set_identity(self, identity: Identity) -> None:
        self.identity = identity
        self.quantities = READABLE & QUANTITIES[identity.phases]
        self._maximum_current = identity.maximum_current or 0

    async def _set(self, setting: Setting, value: SettingValue) -> None:
        await self._read_own_values(IDENTIFIED)
        await self._write(REGISTERS[setting], value)
        found = (await self._read_own_values((*IDENTIFIED, setting)))[setting]
        if found != value:
            raise NotAcceptedError(setting, written=value, found=found)

    async def _confirms(self, values: Mapping[Key, Any], keys: Collection[Key]) -> bool:
        """Tell whether a second answer says the same."""
        again = await self._read_own_values((*IDENTIFIED, *keys))
        return all(again[key] == values[key] for key in keys)

    async def _take_current_range(self, values: Mapping[Key, Any]) -> None:
        """Judge readings from now on by the currents that the meter says it measures."""
        if not _is_current_range(values):
            return
        identity = _with_current_range(self.identity, values)
        # Readings are judged by it for minutes, and a checksum does not see all damage.
        if identity != self.identity and await self._confirms(values, CURRENT_RANGE):
            self._set_identity(identity)

    async def _read_own_values(self, keys: Collection[Key]) -> Mapping[Key, Any]:
        """Read values, and make sure whose they are if the serial number is among them."""

        async def ask() -> Mapping[Key, Any]:
            values = await self._read_values(keys)
            if Identifier.SERIAL_NUMBER in values:
                check_serial_number(
                    expected=self.identity.serial_number, found=values[Identifier.SERIAL_NUMBER]
                )
            return values

        return await confirmed(ask)

    async def _read_values(self, keys: Iterable[Key]) -> Mapping[Key, Any]:
        wanted = frozenset(keys)
        words = await self._read_blocks(_plan_for(wanted, self._cuts, self._pause))
        return {key: self._decode(REGISTERS[key], words) for key in wanted}

    def _decode(self, register: Register, words: Mapping[int, int]) -> Any:
        return register.form.value(
            [words[address] for address in register.addresses], self._maximum_current
        )

    async def _read_blocks(self, blocks: Sequence[Block]) -> Mapping[int, int]:
        """Read words, by address."""
        if not self._answered_last and SERIAL_NUMBER_BLOCK not in blocks[:1]:
            # A meter that is still silent shows it soonest where least is asked of it.
            await self._read_piece(SERIAL_NUMBER_BLOCK)
        words: dict[int, int] = {}
        for block in blocks:
            words |= await self._read_block(block)
        return words

    async def _read_block(self, block: Block) -> Mapping[int, int]:
        """Read a block, and learn where it has to be cut if the meter cannot give it whole.

        Some firmware falls silent on every read across a certain address, some gateways on
        long reads.
        """
        try:
            return await self._read_piece(block)
        except (RefusedError, CommunicationError) as err:
            stops = [start for start in VALUE_STARTS if block.start < start < block.stop]
            if not stops or (isinstance(err, RefusedError) and err.code not in NOT_IN_ONE_PIECE):
                raise
        # Silence has other reasons more often. This fails if the meter is silent altogether.
        self._answered_last = False
        await self._read_piece(SERIAL_NUMBER_BLOCK)
        if (words := await self._try_piece(block)) is not None:
            return words
        readable, unreadable = 0, len(stops)
        while unreadable - readable > 1:
            middle = (readable + unreadable) // 2
            piece = Block(start=block.start, stop=stops[middle])
            if await self._try_piece(piece) is None:
                unreadable = middle
            else:
                readable = middle
        cut = stops[readable]
        words = {
            **await self._read_block(Block(start=block.start, stop=cut)),
            **await self._read_block(Block(start=cut, stop=block.stop)),
        }
        # Not before: had the meter fallen silent meanwhile, the cut would mean nothing.
        self._cuts |= {cut}
        return words

    async def _try_piece(self, block: Block) -> Mapping[int, int] | None:
        """Read a block that the meter may not be able to give; then return None."""
        try:
            return await self._read_piece(block, attempts=PIECE_ATTEMPTS)
        except CommunicationError:
            return None
        except RefusedError as err:
            if err.code not in NOT_IN_ONE_PIECE:
                raise
            return None

    async def _read_piece(self, block: Block, *, attempts: int | None = None) -> Mapping[int, int]:
        words = await self._bus.read_registers(
            self._address, block.start, block.count, attempts=attempts
        )
        self._answered_last = True
        if block.start in ENERGY_BLOCK:
            self._energies_read.append((block, asyncio.get_running_loop().time()))
        return dict(enumerate(words, block.start))

    async def _write(self, register: Register, value: SettingValue) -> None:
        assert register.form.encode is not None
        words = register.form.encode(value)
        if register.write is WriteFunction.SINGLE:
            await self._bus.write_register(self._address, register.address, words[0])
        else:
            await self._bus.write_registers(self._address, register.address, words)


def _wanted(
    quantities: Collection[Quantity], settings: Collection[Setting], *, identified: bool
) -> frozenset[Key]:
    """Return the registers that are wanted.

    The range of currents is set at the meter, like the rate of the S0 outputs beside it.
    """
    return frozenset(
        (
            *quantities,
            *(SETTINGS & frozenset(settings)),
            *(CURRENT_RANGE if Setting.S0_RATE in settings else ()),
            *(IDENTIFIED if identified else ()),
        )
    )


@lru_cache(maxsize=PLANS_KEPT)
def _plan_for(keys: frozenset[Key], cuts: frozenset[int], pause: int) -> Sequence[Block]:
    """Plan what every poll reads again."""
    return plan((REGISTERS[key] for key in keys), cuts, pause=pause)


@lru_cache(maxsize=PLANS_KEPT)
def _readable_along(keys: frozenset[Key], cuts: frozenset[int], pause: int) -> frozenset[Key]:
    """Return what the guard can check with, and reading these keys reads anyway."""
    addresses = {
        address
        for block in _plan_for(keys, cuts, pause)
        for address in range(block.start, block.stop)
    }
    readable = {key for key in CHECKED if addresses.issuperset(REGISTERS[key].addresses)}
    # Totals alone show nothing: two that are damaged may have the sum of two that are not.
    alone = {total for total in TOTALS if not readable.issuperset(parts_of(total))}
    return frozenset(readable - alone)


def _identity(values: Mapping[Key, Any]) -> Identity:
    """Make sure that these registers are those of a KLEFR meter, and say which it is."""
    serial_number: str = values[Identifier.SERIAL_NUMBER]
    doubtful = [key for key, value in values.items() if value is None]
    if doubtful or not serial_number.isdecimal():
        raise NotAKlefrMeterError(f"Its registers hold no {', '.join(doubtful) or 'serial number'}")
    member = MEMBERS.get(values[Identifier.METER_CODE])
    identity = Identity(
        serial_number=serial_number,
        model=Model.UNKNOWN,
        phases=member.phases if member else 3,
        meter_code=values[Identifier.METER_CODE],
        protocol_version=values[Identifier.PROTOCOL_VERSION],
        firmware_version=values[Identifier.FIRMWARE_VERSION],
        hardware_version=values[Identifier.HARDWARE_VERSION],
        checksum=values[Identifier.CHECKSUM],
    )
    return _with_current_range(identity, values)


def _is_current_range(values: Mapping[Key, Any]) -> bool:
    """Tell whether a meter can measure these currents. Without transformers, CT mode is any."""
    ratio, mode, rated_current = (values.get(key) for key in CURRENT_RANGE)
    if None in (ratio, mode, rated_current):
        return False
    return ratio == 0 or mode in TRANSFORMER_SECONDARY_CURRENTS


def _with_current_range(identity: Identity, values: Mapping[Key, Any]) -> Identity:
    """Return the identity with the currents that the meter reports.

    Together with the meter code they show the model.
    """
    ratio: int = values[Identifier.CT_RATIO]
    rated_current: int = values[Identifier.RATED_CURRENT]
    return replace(
        identity,
        model=model_of(
            identity.meter_code or "",
            rated_current=rated_current,
            transformer_primary_current=ratio,
        ),
        rated_current=rated_current,
        transformer_primary_current=ratio or None,
        transformer_secondary_current=values[Identifier.CT_MODE] if ratio else None,
    )


def _plain(value: Any) -> Any:
    """Give a value as JSON has it: choices by name, everything else as it is."""
    match value:
        case Tariff() | CalculationCode() | Quadrant():
            return value.name.lower()
        case IntEnum() | StrEnum():
            return value.value
    return value


def _cuts_from(memory: Mapping[str, Any]) -> frozenset[int]:
    """Return what is remembered of the places where reads have to be cut."""
    cuts = memory.get(MEMORY_CUTS)
    return frozenset(start for start in VALUE_STARTS if isinstance(cuts, list) and start in cuts)
