"""M-Bus telegrams of siblings: another version, and energies without tariffs."""

import pytest

from custom_components.klefr.meter import (
    GarbledAnswerError,
    MBusBus,
    MBusMeter,
    Model,
    Quantity,
    SerialLink,
)
from simulator.mbus import serve
from simulator.meter import VirtualMeter

PORT = "virtual://meter"
WITHOUT_TARIFFS = {
    Quantity.TOTAL_ACTIVE_ENERGY,
    Quantity.FORWARD_ACTIVE_ENERGY,
    Quantity.REVERSE_ACTIVE_ENERGY,
    Quantity.ACCESS_NUMBER,
    Quantity.STATUS_OK,
}
WITH_TARIFFS = WITHOUT_TARIFFS | {
    Quantity(f"{direction}_active_energy_{tariff}")
    for direction in ("total", "forward", "reverse")
    for tariff in ("t1", "t2")
}


@pytest.mark.parametrize(
    ("name", "model", "version", "quantities"),
    [
        ("6933", Model.KLEFR_6933_OR_6943, "1", WITH_TARIFFS),
        ("6943", Model.KLEFR_6933_OR_6943, "1", WITH_TARIFFS),
        ("pro1-mbus", Model.PRO_WITHOUT_TARIFFS, "9", WITHOUT_TARIFFS),
    ],
)
@pytest.mark.parametrize("address", [0, "22091039"])
async def test_a_sibling_is_read_likewise(
    name: str, model: Model, version: str, quantities: set[Quantity], address: int | str
) -> None:
    virtual_meter = VirtualMeter(model=name, clock=lambda: 0.0)
    async with serve(virtual_meter, virtual=PORT), MBusBus(SerialLink(port=PORT)) as bus:
        meter = await MBusMeter.identify(bus, address)
        values = await meter.read(meter.quantities)
    assert meter.identity.model is model
    assert meter.identity.firmware_version == version
    assert values.keys() == quantities
    assert values[Quantity.FORWARD_ACTIVE_ENERGY] == pytest.approx(
        virtual_meter.forward_active_energy, abs=0.006
    )
    assert None not in values.values()


async def test_one_damaged_record_takes_no_tariff_away() -> None:
    virtual_meter = VirtualMeter(model="6933", clock=lambda: 0.0)
    virtual_meter.record_overrides[1] = bytes.fromhex("8C1013 00000000")
    async with serve(virtual_meter, virtual=PORT), MBusBus(SerialLink(port=PORT)) as bus:
        meter = await MBusMeter.identify(bus, 0)
    assert meter.quantities == WITH_TARIFFS


async def test_a_meter_whose_records_cannot_be_read_is_found() -> None:
    virtual_meter = VirtualMeter(model="6933", clock=lambda: 0.0)
    virtual_meter.extra_records = bytes.fromhex("0C04")
    async with serve(virtual_meter, virtual=PORT), MBusBus(SerialLink(port=PORT)) as bus:
        telegram = await bus.find(0)
        assert telegram is not None
        assert telegram.header.identification == "22091039"
        assert not telegram.records
        with pytest.raises(GarbledAnswerError):
            await MBusMeter.identify(bus, 0)
