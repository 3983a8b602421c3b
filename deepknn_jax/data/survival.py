"""Survival times, with features or without: read from a csv, checked, and as two classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from deepknn_jax.data.listing import first_repeated, read_csv, read_header
from deepknn_jax.errors import UserError

SURVIVAL_DAYS = 1096.0  # three years (Neighborhood Watch, "Datasets")


class Survival(NamedTuple):
    """N patients: `names`; `times` float64 [N], in the csv's unit; `events` bool [N]."""

    names: tuple[str, ...]
    times: np.ndarray
    events: np.ndarray


class SurvivalTable(NamedTuple):
    """N patients as in `Survival`, with `features` float64 [N, F] under `feature_names`."""

    names: tuple[str, ...]
    times: np.ndarray
    events: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]


def check_survival(
    times_N: ArrayLike, events_N: ArrayLike, where: str = "survival"
) -> tuple[np.ndarray, np.ndarray]:
    """Times as float64 [N] and events (1: died, 0: censored) as bool [N], fit for a Cox model.

    `where` opens the messages; rows are counted from 0.

    Raises:
        UserError: lengths differ or are 0; a value is missing or no number; a time is not finite
            or not above 0; an event is neither 0 nor 1; all are censored.
    """
    try:
        times, events = np.asarray(times_N, np.float64), np.asarray(events_N, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: times and events must be numbers ({error})") from error
    if times.ndim != 1 or times.shape != events.shape or not len(times):
        raise UserError(
            f"{where}: times are {list(times.shape)} and events {list(events.shape)};"
            " give one of each for every patient"
        )
    for what, values in (("time", times), ("event", events)):
        if (missing := np.flatnonzero(np.isnan(values))).size:
            raise UserError(f"{where}: row {missing[0]} has no {what}; leave the row out")
    if (bad := np.flatnonzero(~((times > 0) & (times < np.inf)))).size:
        raise UserError(f"{where}: row {bad[0]} has time {times[bad[0]]:g};"
                        " times must be finite and above 0")  # fmt: skip
    if (bad := np.flatnonzero((events != 0) & (events != 1))).size:
        raise UserError(f"{where}: row {bad[0]} has event {events[bad[0]]:g};"
                        " events are 1 (died) and 0 (censored)")  # fmt: skip
    if not events.any():
        raise UserError(f"{where}: all {len(events)} are censored; a survival model needs deaths")
    return times, events == 1


def alive_beyond(
    times_N: np.ndarray, events_N: np.ndarray, days: float = SURVIVAL_DAYS
) -> np.ndarray:
    """Classes int32 [N]: 1 alive after `days`, 0 died by then.

    Who was censored, also before `days`, counts as alive (Neighborhood Watch, "Datasets").
    """
    return ((times_N > days) | (events_N == 0)).astype(np.int32)


def censored_lines(count: int) -> list[str]:
    """Tells of the patients that were left out as censored before SURVIVAL_DAYS; none: nothing."""
    words = f"left out: {count:,} patients, censored before {SURVIVAL_DAYS:,.0f} days"
    return [f"{words} (`leave_out_censored`)"] if count else []


def read_survival(
    path: str | Path, *, time_column: str, event_column: str, name_column: str
) -> Survival:
    """The survival of each row of a csv with a header, in its order.

    Raises:
        UserError: what `listing.read_csv` and `check_survival` refuse; a cell that is no number; a
            name twice.
    """
    path = Path(path).expanduser()
    options = {name_column: "name_column", time_column: "time_column", event_column: "event_column"}
    names, times, events = read_csv(path, (name_column, time_column, event_column), options)
    if (name := first_repeated(names)) is not None:
        raise UserError(f"{path}: {name} is listed more than once; give each patient one row")
    checked_times, checked_events = check_survival(
        _numbers(path, names, time_column, times),
        _numbers(path, names, event_column, events),
        where=str(path),
    )
    return Survival(tuple(names), checked_times, checked_events)


def of_names(survival: Survival, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Times and events [n] of those `names`, in their order.

    Raises:
        UserError: the survival of one of them is not there.
    """
    place = {name: i for i, name in enumerate(survival.names)}
    if missing := [name for name in names if name not in place]:
        raise UserError(
            f"`survival` has no row for {missing[0]} ({len(missing)} of {len(names)} `names` have"
            f" none); its names are like {survival.names[0]}: see `name_column`"
        )
    rows = [place[name] for name in names]
    return survival.times[rows], survival.events[rows]


def read_survival_csv(
    path: str | Path,
    *,
    time_column: str,
    event_column: str,
    name_column: str,
    feature_prefixes: Sequence[str] = (),
) -> SurvivalTable:
    """The survival and the features of each row of a csv with a header, in its order.

    Features are the columns that begin with one of `feature_prefixes`, and with none given all
    but the three named ones; they must be finite numbers without a gap.

    Raises:
        UserError: as `read_survival`; no column has such a prefix; a feature that is missing or
            no finite number.
    """
    path = Path(path).expanduser()
    survival = read_survival(
        path, time_column=time_column, event_column=event_column, name_column=name_column
    )
    known = {time_column, event_column, name_column}
    header = read_header(path, tuple(known))
    prefixes = tuple(feature_prefixes) or ("",)
    feature_names = tuple(
        column for column in header if column.startswith(prefixes) and column not in known
    )
    if not feature_names:
        raise UserError(f"{path}: no column begins with {' or '.join(prefixes)}; set"
                        f" `feature_prefixes`; it has: {', '.join(header[:10])}, ...")  # fmt: skip
    features = np.stack(
        [
            _numbers(path, survival.names, column, cells)
            for column, cells in zip(feature_names, read_csv(path, feature_names), strict=True)
        ],
        axis=1,
    )
    return SurvivalTable(*survival, features, feature_names)


def _numbers(path: Path, names: Sequence[str], column: str, cells: Sequence[str]) -> np.ndarray:
    """The cells of a column as finite float64 [N]."""
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except ValueError:
            values[i] = np.nan
        if not np.isfinite(values[i]):
            raise UserError(f"{path}: {names[i]} has {column} {cell!r}, which is no finite number;"
                            " leave the row or the column out")  # fmt: skip
    return values
