"""A meter's values as the registers that Modbus shows.

The map itself is in `modbus_registers.csv`. Values are rounded to what the meter
resolves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import csv
from dataclasses import dataclass
import json
from pathlib import Path
import struct

from .meter import Energy, LongRead, Parity, VirtualMeter

FLOAT = "Float ABCD"

PROTOCOL_VERSION = 3.20
SOFTWARE_VERSION = 2.18
HARDWARE_VERSION = 1.32
CHECKSUM = 0x0D012D35

PARITIES = {Parity.EVEN: 1, Parity.NONE: 2, Parity.ODD: 3}
ADDRESSES = range(1, 248)
BROADCAST = 0


class IllegalAddressError(Exception):
    """There is no such register, or it is not written this way."""


class IllegalValueError(Exception):
    """The register cannot hold this value."""


class NoAnswerError(Exception):
    """The meter stays silent."""


@dataclass(frozen=True, kw_only=True)
class Register:
    """One value of the map, in one or two registers."""

    address: int
    content: str
    """What it holds, in lower case: the manual is not consistent."""
    length: int
    data_type: str
    write_function: int | None

    def encode(self, value: float) -> list[int]:
        """Return the registers that hold a value."""
        if self.data_type == FLOAT:
            data = struct.pack(">f", value)
        else:
            data = (int(value) & (1 << 16 * self.length) - 1).to_bytes(2 * self.length)
        return list(struct.unpack(f">{self.length}H", data))

    def decode(self, words: Sequence[int]) -> float:
        """Return the value that registers hold."""
        data = struct.pack(f">{self.length}H", *words)
        if self.data_type == FLOAT:
            return float(struct.unpack(">f", data)[0])
        return int.from_bytes(data)

    @property
    def addresses(self) -> range:
        """Where its registers are."""
        return range(self.address, self.address + self.length)


def _read_map() -> Iterator[Register]:
    with Path(__file__).with_name("modbus_registers.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield Register(
                address=int(row["address"], 16),
                content=row["content"].lower(),
                length=int(row["length"]),
                data_type=row["data_type"],
                write_function=int(row["write_function"] or 0) or None,
            )


REGISTERS = {register.address: register for register in _read_map()}
ADDRESSES_IN_MAP = frozenset(
    address for register in REGISTERS.values() for address in register.addresses
)

KEPT_IN_MEMORY = frozenset(
    register.content for register in REGISTERS.values() if register.write_function
) | {"serial number"}
"""What can change although all other registers are fixed by an image."""


def _digits(number: int) -> int:
    """Return the number whose hexadecimal digits are the decimal digits of another."""
    return int(str(number), 16)


def _number(digits: float) -> int:
    """Do the opposite, or raise ValueError."""
    return int(f"{int(digits):X}")


def _write_address(meter: VirtualMeter, value: float) -> None:
    if value not in ADDRESSES:
        raise ValueError(f"no meter has address {value:.0f}")
    meter.address = int(value)


def _write_baud_rate(meter: VirtualMeter, value: float) -> None:
    meter.baud_rate = int(value)


def _write_s0_rate(meter: VirtualMeter, value: float) -> None:
    meter.s0_rate = value


def _write_calculation_code(meter: VirtualMeter, value: float) -> None:
    meter.calculation_code = int(value)


def _write_lcd_cycle_time(meter: VirtualMeter, value: float) -> None:
    meter.lcd_cycle_time = _number(value)


def _write_parity(meter: VirtualMeter, value: float) -> None:
    for parity, number in PARITIES.items():
        if number == value:
            meter.parity = parity
            return
    raise ValueError(f"there is no parity {value:.0f}")


def _write_power_down_counter(meter: VirtualMeter, value: float) -> None:
    if value != 0:
        raise ValueError("the power-down counter can only be reset")
    meter.power_down_counter = 0


def _write_tariff(meter: VirtualMeter, value: float) -> None:
    meter.tariff = int(value)


def _write_day_counter(meter: VirtualMeter, value: float) -> None:
    if value != 0:
        raise ValueError("the day counter can only be reset")
    meter.day_counter = 0


WRITERS: Mapping[str, Callable[[VirtualMeter, float], None]] = {
    "modbus id": _write_address,
    "baud rate": _write_baud_rate,
    "s0 output rate": _write_s0_rate,
    "calculation code": _write_calculation_code,
    "lcd cycle time": _write_lcd_cycle_time,
    "parity setting": _write_parity,
    "power down counter": _write_power_down_counter,
    "tariff": _write_tariff,
    "resettable day counter": _write_day_counter,
}


def _identity_and_settings(meter: VirtualMeter) -> Iterator[tuple[str, float]]:
    yield "serial number", int(meter.serial_number, 16)
    yield "meter code", meter.model.kind.meter_code
    yield "modbus id", meter.address
    yield "baud rate", meter.baud_rate
    yield "protocol version", PROTOCOL_VERSION
    yield "software version", SOFTWARE_VERSION
    yield "hardware version", HARDWARE_VERSION
    yield "meter amps", meter.model.kind.rated_current
    yield "ct ratio", _digits(meter.ct_primary)
    yield "s0 output rate", meter.s0_rate
    yield "calculation code", meter.calculation_code
    yield "lcd cycle time", _digits(meter.lcd_cycle_time)
    yield "parity setting", PARITIES[meter.parity]
    yield "power down counter", meter.power_down_counter
    yield "checksum", CHECKSUM
    yield "active status word", _status_word(meter)
    yield "ct mode", meter.ct_secondary
    yield "tariff", meter.tariff
    yield "resettable day counter", round(meter.day_counter, 2)


def _status_word(meter: VirtualMeter) -> int:
    """Return the display's digits: program and EEPROM, then the three phases."""
    digits = (0, 0, meter.program_ok, meter.eeprom_ok, 0, *meter.supplied)
    return int("".join(str(int(digit)) for digit in digits), 16)


def _measurements(meter: VirtualMeter) -> Iterator[tuple[str, float]]:
    sample = meter.sample
    yield "grid frequency", round(sample.frequency, 2)
    yield "total active power", round(sample.active_power, 3)
    yield "total reactive power", round(sample.reactive_power, 3)
    yield "total apparent power", round(sample.apparent_power, 3)
    yield "power factor", round(sample.power_factor, 2)
    yield "present quadrant", sample.quadrant
    if meter.model.kind.phases == 1:
        yield "voltage", round(sample.phases[0].voltage, 1)
        yield "current", round(sample.phases[0].current, 2)
        yield "error code", 0 if meter.program_ok and meter.eeprom_ok else 1
        return
    for number, phase in enumerate(sample.phases, 1):
        line = f"l{number}"
        direction = f"{number}{'R' if phase.active_power < 0 else 'F'}"
        # The map calls the one of L1 just "current direction".
        of_line = "" if number == 1 else f"{line} "
        yield f"{of_line}current direction", int.from_bytes(direction.encode())
        yield f"{line} quadrant", phase.quadrant
        yield f"{line} voltage", round(phase.voltage, 1)
        yield f"{line} current", round(phase.current, 2)
        yield f"{line} active power", round(phase.active_power, 3)
        yield f"{line} reactive power", round(phase.reactive_power, 3)
        yield f"{line} apparent power", round(phase.apparent_power, 3)
        yield f"{line} power factor", round(phase.power_factor, 2)


def _energies(meter: VirtualMeter, kind: str, energy: Energy) -> Iterator[tuple[str, float]]:
    pairs = [("", energy.forward.total, energy.reverse.total)]
    pairs += [
        (f"t{tariff} ", forward, energy.reverse.tariffs[tariff])
        for tariff, forward in energy.forward.tariffs.items()
    ]
    if meter.model.kind.phases == 3:
        pairs += [
            (f"l{number} ", *counts)
            for number, counts in enumerate(
                zip(energy.forward.phases, energy.reverse.phases, strict=True), 1
            )
        ]
    for part, forward, reverse in pairs:
        yield f"{part}total {kind} energy", round(meter.combine(forward, reverse), 2)
        yield f"{part}forward {kind} energy", round(forward, 2)
        yield f"{part}reverse {kind} energy", round(reverse, 2)


def _values(meter: VirtualMeter) -> dict[str, float]:
    """Return all values by what the map calls them. What a meter does not measure is zero."""
    return {
        **dict.fromkeys((register.content for register in REGISTERS.values()), 0.0),
        **dict(_identity_and_settings(meter)),
        **dict(_measurements(meter)),
        **dict(_energies(meter, "active", meter.active_energy)),
        **dict(_energies(meter, "reactive", meter.reactive_energy)),
    }


class Registers:
    """The registers of one meter."""

    def __init__(self, meter: VirtualMeter) -> None:
        """Show a meter's values, or its image with only the meter's settings in it."""
        self._meter = meter

    def all(self) -> dict[int, int]:
        """Return every register by its address."""
        image = self._meter.image
        words = dict(image or {})
        values = _values(self._meter)
        for register in REGISTERS.values():
            if image is None or register.content in KEPT_IN_MEMORY:
                words.update(self._place(register, values[register.content]))
        for address, value in self._meter.overrides.items():
            words.update(self._place(REGISTERS[address], value))
        return words

    @staticmethod
    def _place(register: Register, value: float) -> Iterator[tuple[int, int]]:
        return zip(register.addresses, register.encode(value), strict=True)

    def value(self, address: int) -> float:
        """Return the value of the map at an address."""
        register = REGISTERS[address]
        words = self.all()
        return register.decode([words[a] for a in register.addresses])

    def read(self, address: int, count: int) -> list[int]:
        """Return registers, or raise what the meter answers instead."""
        meter = self._meter
        if not ADDRESSES_IN_MAP.issuperset(range(address, address + count)):
            raise IllegalAddressError
        if meter.max_read_count is not None and count > meter.max_read_count:
            match meter.long_read:
                case LongRead.ILLEGAL_ADDRESS:
                    raise IllegalAddressError
                case LongRead.ILLEGAL_VALUE:
                    raise IllegalValueError
                case LongRead.SILENCE:
                    raise NoAnswerError
        if any(address < cut < address + count for cut in meter.silent_across):
            raise NoAnswerError
        words = self.all()
        return [words[a] for a in range(address, address + count)]

    def write(self, function: int, address: int, words: Sequence[int]) -> None:
        """Write a value with the function that its register is written with."""
        register = REGISTERS.get(address)
        if register is None or register.write_function != function or register.length != len(words):
            raise IllegalAddressError
        if self._meter.refuse_writes:
            raise IllegalValueError
        if self._meter.ignore_writes:
            return
        try:
            WRITERS[register.content](self._meter, register.decode(words))
        except ValueError as error:
            raise IllegalValueError(str(error)) from error


def load_image(path: Path) -> dict[int, int]:
    """Read registers from a JSON file of blocks, or raise ValueError."""
    blocks = json.loads(path.read_text(encoding="utf-8"))
    try:
        return {
            int(start, 16) + offset: int(word)
            for start, block in blocks.items()
            for offset, word in enumerate(block["registers"])
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no blocks of registers") from error


def put_image(meter: VirtualMeter, image: Mapping[int, int]) -> None:
    """Let a meter show an image, with its settings and counters in the meter's memory.

    The image is registers by address. Raises ValueError if one is missing.
    """
    if missing := ADDRESSES_IN_MAP - image.keys():
        raise ValueError(f"the register image lacks 0x{min(missing):04X}")
    # Counters can only be written to zero, so these two are set directly.
    recalled = dict(WRITERS)
    recalled["power down counter"] = lambda meter, value: setattr(
        meter, "power_down_counter", int(value)
    )
    recalled["resettable day counter"] = lambda meter, value: setattr(meter, "day_counter", value)
    recalled["serial number"] = lambda meter, value: setattr(
        meter, "serial_number", f"{int(value):08X}"
    )
    meter.image = image
    for register in REGISTERS.values():
        if recall := recalled.get(register.content):
            recall(meter, register.decode([image[a] for a in register.addresses]))
