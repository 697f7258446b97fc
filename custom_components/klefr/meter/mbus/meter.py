"""A meter that speaks M-Bus: the 6933, the 6943 and their family."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from decimal import Decimal
from functools import partial
import re
from typing import Any, Final, Self, override

from ..errors import (
    CodeNotAcknowledgedError,
    GarbledAnswerError,
    InvalidAddressError,
    InvalidRangeError,
    InvalidValueError,
    NoAnswerError,
    NotAcknowledgedError,
    NotAKlefrMeterError,
    WrongConfirmationError,
)
from ..link import BaudRate, Parity
from ..meter import Meter, check_serial_number, confirmed
from ..model import (
    LOCKED_CODE,
    NO_SERIAL_NUMBER,
    S0_RATES,
    WRITABLE_CODES,
    Communication,
    Counter,
    Identity,
    Model,
    Quantity,
    Reading,
    Setting,
    Settings,
    SettingValue,
    Tariff,
    Value,
)
from .bus import Answer, Command, MBusBus, SecondaryAddress, Target
from .frame import ControlInformation
from .record import Function, Medium, Record, Telegram, bcd
from .vif import Unit

PRIMARY_ADDRESSES: Final = range(251)

# Inepro Metering. Some firmware sends the bytes in the other order.
MANUFACTURERS: Final = (0x25CD, 0xCD25)

# The function says which way energy flowed (manual, appendix 2.2).
ENERGIES: Final[Mapping[tuple[Function, int], Quantity]] = {
    (Function.INSTANTANEOUS, 0): Quantity.TOTAL_ACTIVE_ENERGY,
    (Function.INSTANTANEOUS, 1): Quantity.TOTAL_ACTIVE_ENERGY_T1,
    (Function.INSTANTANEOUS, 2): Quantity.TOTAL_ACTIVE_ENERGY_T2,
    (Function.MAXIMUM, 0): Quantity.FORWARD_ACTIVE_ENERGY,
    (Function.MAXIMUM, 1): Quantity.FORWARD_ACTIVE_ENERGY_T1,
    (Function.MAXIMUM, 2): Quantity.FORWARD_ACTIVE_ENERGY_T2,
    (Function.MINIMUM, 0): Quantity.REVERSE_ACTIVE_ENERGY,
    (Function.MINIMUM, 1): Quantity.REVERSE_ACTIVE_ENERGY_T1,
    (Function.MINIMUM, 2): Quantity.REVERSE_ACTIVE_ENERGY_T2,
}
OF_A_TARIFF: Final = frozenset(quantity for (_, tariff), quantity in ENERGIES.items() if tariff)
QUANTITIES: Final = frozenset({*ENERGIES.values(), Quantity.ACCESS_NUMBER, Quantity.STATUS_OK})
WATT_HOURS: Final = 1000  # in a kWh

# The status in a header (manual, appendix 2.2).
STATUS_OK: Final[Mapping[int, bool]] = {0x00: True, 0x02: False}

WRITABLE: Final[Mapping[Setting, Collection[SettingValue]]] = {
    Setting.TARIFF: (Tariff.T1, Tariff.T2),
    Setting.CALCULATION_CODE: WRITABLE_CODES,
    Setting.S0_RATE: S0_RATES,
}

BAUD_RATES: Final[Mapping[BaudRate, ControlInformation]] = {
    BaudRate.B300: ControlInformation.BAUD_300,
    BaudRate.B600: ControlInformation.BAUD_600,
    BaudRate.B1200: ControlInformation.BAUD_1200,
    BaudRate.B2400: ControlInformation.BAUD_2400,
    BaudRate.B4800: ControlInformation.BAUD_4800,
    BaudRate.B9600: ControlInformation.BAUD_9600,
}

# What is sent to set the meter (manual, appendix 2.2).
COMMANDS: Final[Mapping[Setting, Callable[[Any], Command]]] = {
    Setting.TARIFF: lambda tariff: Command(data=b"\x09\x7c\x01\x54" + bcd(tariff, 2)),
    Setting.CALCULATION_CODE: lambda code: Command(data=b"\x09\xfd\x3a" + bcd(code, 2)),
    Setting.S0_RATE: lambda rate: Command(data=b"\x0c\xfd\x3a" + bcd(round(rate * 100), 8)),
    Setting.ADDRESS: lambda address: Command(data=b"\x01\x7a" + bytes((address,))),
    Setting.SECONDARY_ADDRESS: lambda digits: Command(data=b"\x0c\x79" + bcd(int(digits), 8)),
    Setting.BAUD_RATE: lambda rate: Command(information=BAUD_RATES[rate]),
}
RESETS: Final[Mapping[Counter, Command]] = {
    Counter.RESETTABLE: Command(data=b"\x0c\x04" + bcd(0, 8)),
    Counter.POWER_DOWN: Command(data=b"\x0a\xfd\x60" + bcd(0, 4)),
}


def is_secondary_address(text: str) -> bool:
    """Return whether a text has the 8 digits of a secondary address, which are not all zeros."""
    return re.fullmatch("[0-9]{8}", text) is not None and text != NO_SERIAL_NUMBER


def parse_address(text: str) -> int | str:
    """Return a primary address, 0 to 250, as a number, and a secondary one as its 8 digits.

    Raises InvalidAddressError if it is neither.
    """
    address = text.strip()
    if is_secondary_address(address):
        return address
    if re.fullmatch("[0-9]{1,3}", address) and int(address) in PRIMARY_ADDRESSES:
        return int(address)
    raise InvalidAddressError(f"{text!r} is neither a primary nor a secondary address")


COMMUNICATION: Final[Mapping[Setting, Callable[[Any], bool]]] = {
    Setting.ADDRESS: lambda address: address in PRIMARY_ADDRESSES,
    Setting.SECONDARY_ADDRESS: is_secondary_address,
    Setting.BAUD_RATE: lambda rate: rate in BAUD_RATES,
}


class MBusMeter(Meter):
    """A meter on an M-Bus line, known by the identification in its telegrams."""

    settings = WRITABLE
    counters = frozenset(RESETS)
    registers = ()
    reports_settings = False
    all_at_once = True

    def __init__(self, bus: MBusBus, target: Target, identity: Identity) -> None:
        """Use `identify` instead: a meter is not known before it has been asked."""
        self.identity = identity
        tariffs = identity.model is not Model.PRO_WITHOUT_TARIFFS
        self.quantities = QUANTITIES if tariffs else QUANTITIES - OF_A_TARIFF
        self._bus = bus
        self._target = target

    @staticmethod
    async def is_answered(bus: MBusBus, address: int | str, *, attempts: int = 1) -> bool:
        """Ask whether a device answers at the address, or several at once. Raises LinkError."""
        target = address if isinstance(address, int) else SecondaryAddress(identification=address)
        try:
            return await bus.find(target, attempts=attempts) is not None
        except GarbledAnswerError, NotAKlefrMeterError:
            return True

    @classmethod
    async def identify(cls, bus: MBusBus, address: int | str) -> Self:
        """Ask who answers at a primary address, or at a secondary one of 8 digits.

        Raises NotAKlefrMeterError if it is something else, and what `Meter` raises.
        """
        if isinstance(address, int):
            return await cls._identify(bus, address)
        *others, last = (
            SecondaryAddress(identification=address, manufacturer=manufacturer)
            for manufacturer in MANUFACTURERS
        )
        for target in others:
            with suppress(NoAnswerError):
                return await cls._identify(bus, target)
        return await cls._identify(bus, last)

    @classmethod
    async def _identify(cls, bus: MBusBus, target: Target) -> Self:
        telegrams = await bus.read(target)
        return cls(bus, target, identity_of(telegrams))

    @property
    @override
    def memory(self) -> Mapping[str, Any]:
        return {}

    @property
    @override
    def diagnostics(self) -> Mapping[str, Any]:
        return {"bus": dict(self._bus.tally)}

    @override
    async def read_along(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> Reading:
        began = asyncio.get_running_loop().time()
        answers = await self._read_own_answers()
        return Reading(
            values={
                # A telegram that lacks what the meter reports is damaged.
                **dict.fromkeys(self.quantities.union(quantities)),
                **_values([answer.telegram for answer in answers]),
            },
            settings={},
            spread=asyncio.get_running_loop().time() - began if len(answers) > 1 else 0.0,
        )

    @override
    def line_time(
        self,
        quantities: Collection[Quantity],
        *,
        settings: Collection[Setting] = (),
        identified: bool = True,
    ) -> float:
        return self._bus.readout_time(self._target)

    @override
    async def read_settings(self) -> Settings:
        return dict.fromkeys(WRITABLE)

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
        await self._send(RESETS[counter])

    @override
    async def read_communication(self) -> Communication:
        [first, *_] = await self._read_own_answers()
        return Communication(
            address=first.frame.address,
            secondary_address=first.telegram.header.identification,
            baud_rate=self._bus.link.baud_rate,
            parity=Parity.EVEN,
        )

    @override
    async def write_communication(self, setting: Setting, value: SettingValue) -> None:
        allowed = COMMUNICATION.get(setting)
        if allowed is None or not allowed(value):
            raise InvalidValueError(setting, value)
        await self._set(setting, value)

    @override
    async def dump(self, registers: range | None = None) -> Mapping[str, Any]:
        if registers is not None:
            raise InvalidRangeError("Over M-Bus there are no registers")
        answers = await self._read_own_answers()
        values = _values([answer.telegram for answer in answers])
        return {
            "telegrams": [
                {
                    "frame": answer.frame.encode().hex(" ").upper(),
                    "header": {
                        **asdict(answer.telegram.header),
                        "manufacturer": answer.telegram.header.manufacturer_letters,
                    },
                    "records": [_plain(record) for record in answer.telegram.records],
                    "unknown": [record.hex(" ").upper() for record in answer.telegram.unknown],
                }
                for answer in answers
            ],
            "values": {str(quantity): value for quantity, value in values.items()},
        }

    async def _set(self, setting: Setting, value: SettingValue) -> None:
        try:
            await self._send(COMMANDS[setting](value))
        except NotAcknowledgedError as err:
            if setting is Setting.CALCULATION_CODE:
                raise CodeNotAcknowledgedError(str(err)) from err
            raise

    async def _send(self, command: Command) -> None:
        await confirmed(partial(self._bus.write, self._target, command, self._check))

    async def _read_own_answers(self) -> list[Answer]:
        async def ask() -> list[Answer]:
            answers = await self._bus.read_answers(self._target)
            self._check([answer.telegram for answer in answers])
            return answers

        return await confirmed(ask)

    def _check(self, telegrams: Sequence[Telegram]) -> None:
        """Make sure that it is this meter that answered."""
        found = identity_of(telegrams).serial_number
        check_serial_number(expected=self.identity.serial_number, found=found)


def identity_of(telegrams: Sequence[Telegram]) -> Identity:
    """Say which meter answered, from its first telegram or from more of them.

    Raises NotAKlefrMeterError if it is none of KLEFR's.
    """
    header = telegrams[0].header
    if header.manufacturer not in MANUFACTURERS or header.medium != Medium.ELECTRICITY:
        raise NotAKlefrMeterError(
            f"It says that it is of {header.manufacturer_letters}, medium {header.medium}"
        )
    if not header.identification.isdecimal():
        raise NotAKlefrMeterError("Its identification has other digits than decimal ones")
    energies = _energies(record for telegram in telegrams for record in telegram.records)
    complete = energies and not telegrams[-1].more_records_follow
    without_tariffs = complete and OF_A_TARIFF.isdisjoint(energies)
    return Identity(
        serial_number=header.identification,
        model=Model.PRO_WITHOUT_TARIFFS if without_tariffs else Model.KLEFR_6933_OR_6943,
        firmware_version=str(header.version),
    )


def _values(telegrams: Sequence[Telegram]) -> Mapping[Quantity, Value | None]:
    header = telegrams[0].header
    return {
        Quantity.ACCESS_NUMBER: header.access_number,
        Quantity.STATUS_OK: STATUS_OK.get(header.status),
        **_energies(record for telegram in telegrams for record in telegram.records),
    }


def _plain(record: Record) -> Mapping[str, Any]:
    """Give a record as JSON has it."""
    value = record.value
    return {
        "function": record.function.name.lower(),
        "storage_number": record.storage_number,
        "tariff": record.tariff,
        "subunit": record.subunit,
        "meaning": record.meaning.name.lower(),
        "unit": record.text or record.unit.value,
        "qualifiers": sorted(qualifier.name.lower() for qualifier in record.qualifiers),
        "value": float(value) if isinstance(value, Decimal) else value and str(value),
    }


def _energies(records: Iterable[Record]) -> Mapping[Quantity, float | None]:
    """Pick the energies, in kWh. One that comes twice and differs is not known."""
    energies: dict[Quantity, float | None] = {}
    for record in records:
        quantity = ENERGIES.get((record.function, record.tariff))
        current = record.storage_number == record.subunit == 0 and not record.qualifiers
        if quantity is None or record.unit is not Unit.WATT_HOUR or not current:
            continue
        energy = None
        if isinstance(record.value, Decimal):
            energy = float(record.value / WATT_HOURS)
            if energy < 0 and record.function is not Function.INSTANTANEOUS:
                energy = None
        energies[quantity] = energy if energies.get(quantity, energy) == energy else None
    return energies
