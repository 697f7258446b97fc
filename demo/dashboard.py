"""The Energy dashboard on the sensors of a meter."""

from typing import Any

from .device import Device
from .history import PER_HOUR, Moment, Row, energy_rows, power_rows

ENERGY = {"unit_class": "energy", "unit_of_measurement": "kWh", "mean_type": 0, "has_sum": True}
POWER = {"unit_class": "power", "unit_of_measurement": "kW", "mean_type": 1, "has_sum": False}


async def set_up_dashboard(device: Device, history: list[Moment]) -> None:
    """Give the dashboard its sensors, and those a past."""
    forward, reverse, power = await give_past(device, history)
    grid = {
        "type": "grid",
        "stat_energy_from": forward,
        "stat_energy_to": reverse,
        "power_config": {"stat_rate": power},
        "cost_adjustment_day": 0,
    }
    await device.client.command("energy/save_prefs", energy_sources=[grid])


async def give_past(device: Device, history: list[Moment]) -> tuple[str, str, str]:
    """Import statistics of forward and reverse energy and of power, and return their ids."""
    forward = await device.entity_id("sensor", "forward_active_energy")
    reverse = await device.entity_id("sensor", "reverse_active_energy")
    power = await device.entity_id("sensor", "active_power")

    states = await device.client.states()
    taken, given = (float(states[entity_id]["state"]) for entity_id in (forward, reverse))
    hours = history[::PER_HOUR]
    forwards = [(hour.at, hour.forward) for hour in hours]
    reverses = [(hour.at, hour.reverse) for hour in hours]
    await _import(device, forward, ENERGY, energy_rows(forwards, taken))
    await _import(device, reverse, ENERGY, energy_rows(reverses, given))
    await _import(device, power, POWER, power_rows(history))
    return forward, reverse, power


async def _import(device: Device, entity_id: str, kind: dict[str, Any], rows: list[Row]) -> None:
    metadata = {"statistic_id": entity_id, "source": "recorder", "name": None, **kind}
    await device.client.command("recorder/import_statistics", metadata=metadata, stats=rows)
