"""The Energy dashboard on the sensors of two meters: at the grid and at the roof."""

from collections.abc import Callable
from typing import Any

from .client import Client
from .device import Device
from .history import PER_HOUR, Moment, Row, energy_rows, power_rows
from .process import CURRENCY
from .waiting import settle

ENERGY = {"unit_class": "energy", "unit_of_measurement": "kWh", "mean_type": 0, "has_sum": True}
POWER = {"unit_class": "power", "unit_of_measurement": "kW", "mean_type": 1, "has_sum": False}
MONEY = {"unit_class": None, "unit_of_measurement": CURRENCY, "mean_type": 0, "has_sum": True}

IMPORT_PRICE, EXPORT_PRICE = 0.28, 0.09
"""For each kWh."""
COST_SECONDS = 20


async def set_up_dashboard(
    at_grid: Device, at_roof: Device, grid_history: list[Moment], roof_history: list[Moment]
) -> None:
    """Give the dashboard its sensors and prices, and those a past."""
    client = at_grid.client
    forward = await _energy(at_grid, "forward", grid_history, lambda moment: moment.forward)
    reverse = await _energy(at_grid, "reverse", grid_history, lambda moment: moment.reverse)
    solar = await _energy(at_roof, "forward", roof_history, lambda moment: moment.forward)
    grid_power = await _power(at_grid, grid_history)
    solar_power = await _power(at_roof, roof_history)

    grid = {
        "type": "grid",
        "stat_energy_from": forward,
        "stat_energy_to": reverse,
        "number_energy_price": IMPORT_PRICE,
        "number_energy_price_export": EXPORT_PRICE,
        "power_config": {"stat_rate": grid_power},
        "cost_adjustment_day": 0,
    }
    roof = {
        "type": "solar",
        "stat_energy_from": solar,
        "stat_rate": solar_power,
        "config_entry_solar_forecast": None,
    }
    await client.command("energy/save_prefs", energy_sources=[grid, roof])

    async def missing() -> str:
        made = (await client.command("energy/info"))["cost_sensors"]
        return "" if {forward, reverse} <= made.keys() else "There are no sensors of costs yet"

    await settle(COST_SECONDS, missing)
    costs = (await client.command("energy/info"))["cost_sensors"]
    for entity_id, price, read in (
        (forward, IMPORT_PRICE, lambda moment: moment.forward),
        (reverse, EXPORT_PRICE, lambda moment: moment.reverse),
    ):
        now = await _now(client, entity_id)
        rows = energy_rows(_hours(grid_history, read), now, price)
        await _import(client, costs[entity_id], MONEY, rows)


async def _energy(
    device: Device, direction: str, history: list[Moment], read: Callable[[Moment], float]
) -> str:
    entity_id = await device.entity_id("sensor", f"{direction}_active_energy")
    now = await _now(device.client, entity_id)
    await _import(device.client, entity_id, ENERGY, energy_rows(_hours(history, read), now))
    return entity_id


async def _power(device: Device, history: list[Moment]) -> str:
    entity_id = await device.entity_id("sensor", "active_power")
    await _import(device.client, entity_id, POWER, power_rows(history))
    return entity_id


def _hours(history: list[Moment], read: Callable[[Moment], float]) -> list[tuple[Any, float]]:
    return [(moment.at, read(moment)) for moment in history[::PER_HOUR]]


async def _now(client: Client, entity_id: str) -> float:
    return float((await client.states())[entity_id]["state"])


async def _import(client: Client, entity_id: str, kind: dict[str, Any], rows: list[Row]) -> None:
    metadata = {"statistic_id": entity_id, "source": "recorder", "name": None, **kind}
    await client.command("recorder/import_statistics", metadata=metadata, stats=rows)
