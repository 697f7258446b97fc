"""Which meters there are, told apart over the bus, and what each of them measures."""

import json
from typing import Any

import pytest

from custom_components.klefr.meter import (
    GarbledAnswerError,
    ModbusBus,
    ModbusMeter,
    Model,
    Quantity,
    SerialLink,
)
from custom_components.klefr.meter.family import QUANTITIES, SINGLE_PHASE_ONLY
from custom_components.klefr.meter.modbus.meter import READABLE
from simulator.meter import KINDS, VirtualMeter
from simulator.modbus import serve
from simulator.registers import Registers, load_image, put_image
from tests.data import DATA

from .conftest import PORT

Q = Quantity

SINGLE_PHASE = {
    Q.VOLTAGE,
    Q.CURRENT,
    Q.ERROR_CODE,
    Q.FREQUENCY,
    Q.ACTIVE_POWER,
    Q.REACTIVE_POWER,
    Q.APPARENT_POWER,
    Q.POWER_FACTOR,
    Q.TOTAL_ACTIVE_ENERGY,
    Q.TOTAL_ACTIVE_ENERGY_T1,
    Q.TOTAL_ACTIVE_ENERGY_T2,
    Q.FORWARD_ACTIVE_ENERGY,
    Q.FORWARD_ACTIVE_ENERGY_T1,
    Q.FORWARD_ACTIVE_ENERGY_T2,
    Q.REVERSE_ACTIVE_ENERGY,
    Q.REVERSE_ACTIVE_ENERGY_T1,
    Q.REVERSE_ACTIVE_ENERGY_T2,
    Q.TOTAL_REACTIVE_ENERGY,
    Q.TOTAL_REACTIVE_ENERGY_T1,
    Q.TOTAL_REACTIVE_ENERGY_T2,
    Q.FORWARD_REACTIVE_ENERGY,
    Q.FORWARD_REACTIVE_ENERGY_T1,
    Q.FORWARD_REACTIVE_ENERGY_T2,
    Q.REVERSE_REACTIVE_ENERGY,
    Q.REVERSE_REACTIVE_ENERGY_T1,
    Q.REVERSE_REACTIVE_ENERGY_T2,
    Q.RESETTABLE_COUNTER,
    Q.POWER_DOWN_COUNTER,
    Q.QUADRANT,
    Q.PROGRAM_OK,
    Q.EEPROM_OK,
}
OVER_MODBUS = set(Quantity) - {Q.ACCESS_NUMBER, Q.STATUS_OK}
THREE_PHASE = OVER_MODBUS - {Q.VOLTAGE, Q.CURRENT, Q.ERROR_CODE}

MODELS = {
    "6934": (Model.KLEFR_6934, THREE_PHASE),
    "6944": (Model.KLEFR_6944, THREE_PHASE),
    "pro380": (Model.KLEFR_6934, THREE_PHASE),
    "pro380-ct": (Model.KLEFR_6944, THREE_PHASE),
    "pro1": (Model.PRO1, SINGLE_PHASE),
    "pro2": (Model.PRO2, SINGLE_PHASE),
    "pro380-solar": (Model.PRO380_SOLAR, THREE_PHASE),
    "pro380-ct-solar": (Model.PRO380_CT_SOLAR, THREE_PHASE),
    "pro1-solar": (Model.PRO1_SOLAR, SINGLE_PHASE),
    "pro2-solar": (Model.PRO2_SOLAR, SINGLE_PHASE),
}


async def identified(virtual_meter: VirtualMeter) -> tuple[ModbusMeter, dict[Quantity, Any]]:
    """Return a meter and all that it measures."""
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        meter = await ModbusMeter.identify(bus, 1)
        return meter, dict(await meter.read(meter.quantities))


def test_every_modbus_model_of_the_simulator_is_tried() -> None:
    assert MODELS.keys() == {model for model in KINDS if not model.speaks_mbus}


@pytest.mark.parametrize(("name", "model", "quantities"), [(n, *m) for n, m in MODELS.items()])
async def test_a_model_is_told_from_the_others(
    name: str, model: Model, quantities: set[Quantity]
) -> None:
    virtual_meter = VirtualMeter(model=name, clock=lambda: 0.0)
    meter, values = await identified(virtual_meter)
    assert meter.identity.model is model
    assert meter.identity.phases == (1 if quantities is SINGLE_PHASE else 3)
    assert meter.identity.meter_code == f"{KINDS[virtual_meter.model].meter_code:04X}"
    assert meter.quantities == values.keys() == quantities
    assert None not in values.values()


async def test_a_single_phase_meter_gives_what_it_measures() -> None:
    virtual_meter = VirtualMeter(model="pro1", clock=lambda: 0.0)
    _, values = await identified(virtual_meter)
    phase = virtual_meter.sample.phases[0]
    assert values[Q.VOLTAGE] == round(phase.voltage, 1)
    assert values[Q.CURRENT] == round(phase.current, 2)
    assert values[Q.ACTIVE_POWER] == round(phase.active_power, 3)
    assert values[Q.ERROR_CODE] == 0
    virtual_meter.eeprom_ok = False
    _, values = await identified(virtual_meter)
    assert values[Q.ERROR_CODE] == 1


async def test_a_meter_with_the_code_of_a_direct_one_has_transformers_if_it_has_a_ratio() -> None:
    virtual_meter = VirtualMeter(model="6944", clock=lambda: 0.0)
    virtual_meter.overrides[0x4002] = 0x0102
    meter, _ = await identified(virtual_meter)
    assert meter.identity.model is Model.KLEFR_6944


async def test_a_three_phase_meter_that_is_wired_for_one_stays_one() -> None:
    virtual_meter = VirtualMeter(clock=lambda: 0.0)
    virtual_meter.supplied = (True, False, False)
    meter, values = await identified(virtual_meter)
    assert meter.identity.model is Model.KLEFR_6934
    assert values.keys() == THREE_PHASE
    assert values[Q.VOLTAGE_L2] == 0


@pytest.mark.parametrize(
    ("name", "quantities"), [("6934", THREE_PHASE), ("6944", THREE_PHASE), ("pro2", SINGLE_PHASE)]
)
async def test_an_unknown_code_is_what_its_registers_show(
    name: str, quantities: set[Quantity]
) -> None:
    virtual_meter = VirtualMeter(model=name, clock=lambda: 0.0)
    virtual_meter.overrides[0x4002] = 0x0199
    meter, values = await identified(virtual_meter)
    assert meter.identity.model is Model.UNKNOWN
    assert meter.identity.meter_code == "0199"
    assert values.keys() == quantities
    assert None not in values.values()


@pytest.mark.parametrize("code", [0x0199, 0x0102])
async def test_a_code_that_is_said_once_is_damage(code: int) -> None:
    virtual_meter = VirtualMeter(model="pro1", clock=lambda: 0.0)
    virtual_meter.overrides[0x4002] = code
    async with (
        serve(virtual_meter, virtual=PORT) as line,
        ModbusBus(SerialLink(port=line.port)) as bus,
    ):
        # The first answer is the serial number alone.
        line.before_answering = lambda _: (
            virtual_meter.overrides.clear() if len(line.requests) == 2 else None
        )
        with pytest.raises(GarbledAnswerError):
            await ModbusMeter.identify(bus, 1)
        meter = await ModbusMeter.identify(bus, 1)
    assert meter.identity.model is Model.PRO1


def test_every_register_is_measured_by_some_meter() -> None:
    assert READABLE == OVER_MODBUS
    assert READABLE & QUANTITIES[1] == SINGLE_PHASE
    assert READABLE & QUANTITIES[3] == THREE_PHASE
    assert READABLE & (QUANTITIES[1] | QUANTITIES[3]) == READABLE
    assert {Q.VOLTAGE, Q.CURRENT, Q.ERROR_CODE} == SINGLE_PHASE_ONLY


async def test_a_real_meter_says_nothing_in_the_registers_of_single_phase_ones() -> None:
    virtual_meter = VirtualMeter()
    put_image(virtual_meter, load_image(DATA / "real_meter_registers.json"))
    assert [Registers(virtual_meter).value(a) for a in (0x5000, 0x500A, 0x4015)] == [0, 0, 0]
    virtual_meter.overrides[0x4002] = 0x0199
    meter, values = await identified(virtual_meter)
    assert values.keys() == THREE_PHASE
    json.dumps(meter.diagnostics)
