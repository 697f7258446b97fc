"""The house behaves like one."""

from math import hypot
from statistics import mean

import pytest

from simulator.household import Household, Phase, Quadrant, Sample


def live(seconds: int, *, start: float = 0, seed: int = 1) -> list[Sample]:
    household = Household(seed=seed)
    return [household.step(start + second) for second in range(seconds)]


def test_voltage_and_frequency_wander_around_nominal() -> None:
    samples = live(7200)
    for phase in range(3):
        voltages = [sample.phases[phase].voltage for sample in samples]
        assert 215 < min(voltages) < max(voltages) < 245
        assert mean(voltages) == pytest.approx(230, abs=3)
        assert len(set(voltages)) > 7000
    frequencies = [sample.frequency for sample in samples]
    assert 49.8 < min(frequencies) < 50 < max(frequencies) < 50.2


@pytest.mark.parametrize("hour", [0, 6, 12, 18])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_any_hour_energy_flows_both_ways_from_the_start(hour: int, seed: int) -> None:
    samples = live(60, start=hour * 3600, seed=seed)
    powers = [phase.active_power for sample in samples for phase in sample.phases]
    assert min(powers) < 0 < max(powers)


def test_the_roof_feeds_in_by_day_only() -> None:
    def office(hour: int) -> float:
        return mean(sample.phases[1].active_power for sample in live(600, start=hour * 3600))

    assert office(0) > 0 > office(12)


def test_the_same_seed_lives_the_same_life() -> None:
    assert live(600, seed=5) == live(600, seed=5)
    assert live(600, seed=5) != live(600, seed=6)


def test_powers_belong_together() -> None:
    sample = live(3600)[-1]
    for phase in sample.phases:
        assert phase.apparent_power == pytest.approx(
            hypot(phase.active_power, phase.reactive_power)
        )
        assert abs(phase.current) * phase.voltage == pytest.approx(phase.apparent_power * 1000)
        assert (phase.current < 0) == (phase.active_power < 0)
        assert 0 <= phase.power_factor <= 1
    assert sample.active_power == pytest.approx(sum(p.active_power for p in sample.phases))
    assert sample.apparent_power == pytest.approx(sum(p.apparent_power for p in sample.phases))


@pytest.mark.parametrize(
    ("active_power", "reactive_power", "quadrant"),
    [(1, 1, Quadrant.I), (-1, 1, Quadrant.II), (-1, -1, Quadrant.III), (1, -1, Quadrant.IV)],
)
def test_quadrant_follows_the_signs(
    active_power: float, reactive_power: float, quadrant: Quadrant
) -> None:
    phase = Phase(voltage=230, active_power=active_power, reactive_power=reactive_power)
    assert phase.quadrant is quadrant
