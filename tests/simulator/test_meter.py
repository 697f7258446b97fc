"""What a meter counts and remembers."""

import pytest

from simulator.meter import CalculationCode, Tariff, VirtualMeter
from simulator.registers import Registers

from .clock import Clock

# Code: total, forward and reverse on the display, then total, forward and reverse in
# the registers, after +5, +5 and -12 kWh on the three phases.
CODES = {
    1: ((10, 10, -12), (10, 10, 12)),
    4: ((-12, 10, -12), (12, 10, 12)),
    5: ((22, 10, 12), (22, 10, 12)),
    6: ((-22, 10, -12), (2, 10, 12)),
    9: ((-2, 10, -12), (-2, 10, 12)),
    10: ((-2, 0, -2), (-2, 0, 2)),
    11: ((-2, 10, -12), (-2, 10, 12)),
}


def counted(meter: VirtualMeter) -> tuple[float, float, float]:
    return meter.total_active_energy, meter.forward_active_energy, meter.reverse_active_energy


@pytest.mark.parametrize("code", CODES)
def test_calculation_code_says_what_is_shown(code: int) -> None:
    meter = VirtualMeter(calculation_code=code, factory_new=True, clock=lambda: 0)
    meter.add_energy(l1=5, l2=5, l3=-12)
    on_display, in_registers = CODES[code]
    display = meter.display
    assert (display.total, display.forward, display.reverse) == on_display
    assert counted(meter) == in_registers
    assert [Registers(meter).value(address) for address in (0x6000, 0x600C, 0x6018)] == [
        *in_registers
    ]


@pytest.mark.parametrize("code", [code for code in CODES if code != 10])
def test_calculation_code_can_be_changed_and_total_jumps(code: int) -> None:
    meter = VirtualMeter(factory_new=True, clock=lambda: 0)
    meter.add_energy(l1=5, l2=5, l3=-12)
    meter.calculation_code = CalculationCode(code)
    assert counted(meter) == CODES[code][1]


@pytest.mark.parametrize("code", [code for code in CODES if code != 10])
def test_calculation_code_10_is_for_ever(code: int) -> None:
    meter = VirtualMeter(calculation_code=10)
    with pytest.raises(ValueError, match="for ever"):
        meter.calculation_code = CalculationCode(code)
    meter.calculation_code = CalculationCode(10)
    assert meter.calculation_code == 10


def test_calculation_code_10_keeps_what_was_counted_before() -> None:
    meter = VirtualMeter(factory_new=True, clock=lambda: 0)
    meter.add_energy(l1=5, l3=-2)
    meter.calculation_code = CalculationCode(10)
    meter.add_energy(l1=3, l3=-1)
    assert counted(meter) == (5, 7, 2)


def test_calculation_code_10_leaves_the_phases_alone() -> None:
    meter = VirtualMeter(calculation_code=10, factory_new=True, clock=lambda: 0)
    meter.add_energy(l1=5, l2=5, l3=-12)
    assert meter.active_energy.forward.phases == [5, 5, 0]
    assert meter.active_energy.reverse.phases == [0, 0, 12]


@pytest.mark.parametrize("code", [1, 10])
def test_tariffs_add_up(code: int, clock: Clock) -> None:
    meter = VirtualMeter(calculation_code=code, clock=clock)
    for tariff in (Tariff.T2, Tariff.T1_UNTIL_RESTART, Tariff.T2_UNTIL_RESTART):
        clock.advance(900)
        meter.tariff = tariff
    for count in (meter.active_energy.forward, meter.reactive_energy.reverse):
        assert count.total == pytest.approx(count.tariffs[Tariff.T1] + count.tariffs[Tariff.T2])


def test_phases_add_up(clock: Clock, meter: VirtualMeter) -> None:
    clock.advance(3600)
    for energy in (meter.active_energy, meter.reactive_energy):
        for count in (energy.forward, energy.reverse):
            assert count.total == pytest.approx(sum(count.phases))


def test_meter_starts_with_plausible_counts(meter: VirtualMeter) -> None:
    assert meter.forward_active_energy > 1000
    assert meter.reverse_active_energy > 1000
    assert min(meter.active_energy.forward.tariffs.values()) > 100
    assert 0 < meter.day_counter < 50


def test_energy_is_the_power_over_time(clock: Clock, meter: VirtualMeter) -> None:
    forward, reverse = meter.forward_active_energy, meter.reverse_active_energy
    expected_forward = expected_reverse = 0.0
    for _ in range(300):
        for phase in meter.sample.phases:
            expected_forward += max(phase.active_power, 0) / 3600
            expected_reverse += max(-phase.active_power, 0) / 3600
        clock.advance(1)
    assert meter.forward_active_energy - forward == pytest.approx(expected_forward)
    assert meter.reverse_active_energy - reverse == pytest.approx(expected_reverse)


def test_how_often_it_is_looked_at_changes_nothing() -> None:
    clock = Clock()
    often, once = VirtualMeter(clock=clock), VirtualMeter(clock=clock)
    for _ in range(1000):
        clock.advance(0.7)
        assert often.power
    assert often.active_energy == once.active_energy
    assert often.sample == once.sample


def test_speed_makes_time_pass_faster() -> None:
    clock = Clock()
    fast, slow = VirtualMeter(clock=clock, speed=60), VirtualMeter(clock=clock)
    clock.advance(1)
    assert fast.power
    clock.advance(59)
    clock_of_fast = Clock()
    same = VirtualMeter(clock=clock_of_fast)
    clock_of_fast.advance(3600)
    assert fast.active_energy == same.active_energy
    assert fast.forward_active_energy > slow.forward_active_energy


def test_energy_is_counted_in_the_tariff_in_force(clock: Clock, meter: VirtualMeter) -> None:
    tariffs = meter.active_energy.forward.tariffs
    before = dict(tariffs)
    clock.advance(600)
    meter.tariff = Tariff.T2
    in_t1 = dict(tariffs)
    clock.advance(600)
    assert meter.tariff is Tariff.T2
    assert meter.forward_active_energy == pytest.approx(sum(tariffs.values()))
    assert in_t1[Tariff.T1] > before[Tariff.T1]
    assert in_t1[Tariff.T2] == before[Tariff.T2]
    assert tariffs[Tariff.T1] == in_t1[Tariff.T1]
    assert tariffs[Tariff.T2] > in_t1[Tariff.T2]


def test_day_counter_is_forward_energy_since_its_reset(clock: Clock, meter: VirtualMeter) -> None:
    meter.day_counter = 0
    assert meter.day_counter == 0
    before = meter.forward_active_energy
    clock.advance(1800)
    assert meter.day_counter == pytest.approx(meter.forward_active_energy - before)
    assert meter.day_counter > 0


def test_restart_is_counted_and_forgets_the_unsaved_tariff(meter: VirtualMeter) -> None:
    restarts = meter.power_down_counter
    meter.tariff = Tariff.T2
    meter.tariff = Tariff.T1_UNTIL_RESTART
    meter.power_cycle()
    assert meter.power_down_counter == restarts + 1
    assert meter.tariff is Tariff.T2


def test_without_power_nothing_is_counted(clock: Clock, meter: VirtualMeter) -> None:
    meter.power_down()
    before = meter.forward_active_energy, meter.reverse_active_energy
    clock.advance(3600)
    assert (meter.forward_active_energy, meter.reverse_active_energy) == before
    meter.power_up()
    clock.advance(3600)
    assert (meter.forward_active_energy, meter.reverse_active_energy) != before


def test_phase_without_supply_carries_nothing(clock: Clock, meter: VirtualMeter) -> None:
    meter.supplied = (True, False, False)
    before = list(meter.active_energy.reverse.phases)
    clock.advance(600)
    phase = meter.sample.phases[2]
    assert (phase.voltage, phase.current, phase.active_power) == (0, 0, 0)
    assert meter.active_energy.reverse.phases[2] == before[2]


def test_behind_current_transformers_powers_are_primary(clock: Clock) -> None:
    direct = VirtualMeter(clock=clock)
    behind = VirtualMeter(model="6944", ct_primary=250, clock=clock)
    assert behind.power == pytest.approx(10 * direct.power)


@pytest.mark.parametrize("model", ["6933", "6934", "6943", "6944"])
def test_model_is_as_the_factory_makes_it(model: str, clock: Clock) -> None:
    meter = VirtualMeter(model=model, serial_number="22091040", clock=clock)
    assert meter.address == (0 if meter.model.speaks_mbus else 1)
    assert meter.secondary_address == "22091040"
    assert meter.model.speaks_mbus == (model in ("6933", "6943"))
    assert meter.model.has_current_transformers == (model in ("6943", "6944"))


@pytest.mark.parametrize(("m_bus", "modbus"), [("6933", "6934"), ("6943", "6944")])
def test_bus_makes_no_difference_to_what_is_counted(m_bus: str, modbus: str, clock: Clock) -> None:
    one, other = (VirtualMeter(model=model, clock=clock) for model in (m_bus, modbus))
    clock.advance(900)
    assert one.sample == other.sample
    assert one.active_energy == other.active_energy


def test_secondary_address_is_the_serial_number_until_it_is_set(meter: VirtualMeter) -> None:
    meter.serial_number = "12345678"
    assert meter.secondary_address == "12345678"
    meter.secondary_address = "00000001"
    meter.serial_number = "22091039"
    assert meter.secondary_address == "00000001"
    assert VirtualMeter(secondary_address="00000002").secondary_address == "00000002"


@pytest.mark.parametrize("digits", ["1234567", "123456789", "2209103A", ""])
def test_serial_number_and_secondary_address_have_eight_digits(digits: str) -> None:
    with pytest.raises(ValueError, match="8 digits"):
        VirtualMeter(serial_number=digits)
    with pytest.raises(ValueError, match="8 digits"):
        VirtualMeter(secondary_address=digits)


def test_a_meter_at_the_roof_counts_what_the_house_gets_from_it() -> None:
    clock = Clock()
    house = VirtualMeter(seed=3, clock=clock)
    roof = VirtualMeter(model="pro1", seed=4, roof_of=3, clock=clock)
    night = VirtualMeter(model="pro1", seed=4, roof_of=3, clock=lambda: 0.0)
    assert night.power == 0
    before = roof.forward_active_energy, roof.reverse_active_energy
    clock.advance(3600)
    assert house.sample.solar_power == pytest.approx(roof.power)
    assert 0.2 < roof.power <= 1.8
    assert 0.2 < roof.forward_active_energy - before[0] <= 1.8
    assert roof.reverse_active_energy == before[1]
