"""Scorings in JSON and XML, as tables.

Every program nests its epochs in another way. The table is made of the records in which most values are stages: the
elements of one name in XML, a list in JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from src.recordings.sleep.scoring_tables import SCORER, one_scorer
from src.recordings.sleep.scoring_times import number
from src.recordings.sleep.stage_names import ScoringOptions, integer_of
from src.signals import UNSCORED, BadInput

Table = list[list[str]]
Stages = list[int] | list[str]
_EPOCH_LENGTH = re.compile(r"epoch_?(?:len|dur|s$|sec|size)\w*", re.IGNORECASE)
_STAGES = re.compile(r"stage|score|scoring|hypno", re.IGNORECASE)
_LEAST = 5
"""Values that a list in JSON needs, to be taken for stages."""


def json_table(path: Path, text: str, options: ScoringOptions) -> tuple[Table, float | None, str] | None:
    """The table of a JSON text, the length of an epoch that it states, and whose it is; ``None`` if it has no stages.

    Of several tables with different stages one has to be named: by its scorer, or by the keys that lead to it.
    """
    found, epoch_s = json_tables(text, options)
    if not found:
        return None
    best = max(found, key=lambda item: len(item[2]))
    others = [item for item in found if 2 * len(item[2]) >= len(best[2]) and type(item[2][0]) is type(best[2][0])]
    if all(stages == best[2] for _, _, stages in others):
        return best[1], epoch_s, ""
    chosen = one_scorer(path, [name for name, _, _ in others], options)
    return next(table for name, table, _ in others if name == chosen), epoch_s, chosen


def json_tables(text: str, options: ScoringOptions) -> tuple[list[tuple[str, Table, Stages]], float | None]:
    """The tables with stages in a JSON text, with their names and stages, and the length of an epoch that it states.

    Read are lists of stages, lists of records, and columns of one length, at any depth.
    """
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return [], None
    nodes, found, epoch_s = [("", root)], [], None
    while nodes:
        name, node = nodes.pop(0)
        table = _table_of(node)
        if table and len(stages := _stages(table, options, any_integer=True)) >= _LEAST:
            found.append((name, table, stages))
        pairs = list(node.items() if isinstance(node, dict) else enumerate(node))
        who = next((str(v) for k, v in pairs if SCORER.search(str(k)) and not isinstance(v, dict | list)), None)
        nodes += [
            (who or f"{name}.{key}".strip("."), value)
            for key, value in pairs
            if isinstance(value, dict if table else dict | list)
        ]
        if isinstance(node, dict):
            stated = [number(str(value)) for key, value in node.items() if _EPOCH_LENGTH.fullmatch(key)]
            epoch_s = epoch_s or next((value for value in stated if value and value > 0), None)
    return found, epoch_s


def _table_of(node: Any) -> Table | None:
    """The table that a dict of columns, a list of records, of rows or of values is."""
    if isinstance(node, dict):
        columns = {key: value for key, value in node.items() if isinstance(value, list) and value}
        columns = {key: value for key, value in columns.items() if not isinstance(value[0], dict | list)}
        if len(columns) > 1 and len({len(column) for column in columns.values()}) == 1:
            return _table(list(columns), zip(*columns.values(), strict=True))
    elif node and all(isinstance(record, dict) for record in node):
        keys = list(dict.fromkeys(key for r in node for key, v in r.items() if not isinstance(v, dict | list)))
        return _table(keys, ([record.get(key) for key in keys] for record in node))
    elif node and all(isinstance(row, list) and row and not isinstance(row[0], dict | list) for row in node):
        return _table([""] * len(node[0]), node)
    elif node and not any(isinstance(value, dict | list) for value in node):
        return _table([], ([value] for value in node))
    return None


def _table(heading: Sequence[str], rows: Any) -> Table:
    cells = [["" if cell is None else str(cell).strip() for cell in row] for row in rows]
    return [list(heading), *cells] if heading else cells


def _stages(table: Table, options: ScoringOptions, *, any_integer: bool = False) -> Stages:
    """The stages in the column that has most: their labels, or integers as they are, where the heading says so."""
    found: list[Stages] = [[]]
    for column in range(max(map(len, table), default=0)):
        cells = [row[column] for row in table if len(row) > column]
        labels = [options.stage(cell) for cell in cells]
        found.append([label for label in labels if label is not None and label != UNSCORED])
        integers = [cell for cell in cells if integer_of(cell) is not None]
        if 2 * len(integers) > len(cells) and len({*integers}) < 12 and (any_integer or _STAGES.search(cells[0])):
            found.append(integers)
    return max(found, key=len)


def xml_table(path: Path, text: str, options: ScoringOptions) -> tuple[Table, float | None, str]:
    """The table of an XML file, the length of an epoch that it states, and the name of the elements that it is made of.

    Read are NSRR (``ScoredEvent``), Profusion and Polysmith (``SleepStage``), Alice (``Stage``), Embla (``Event``),
    Wonambi (``epoch``) and whatever has elements with a stage among their attributes or children.
    """
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise BadInput(path, "is XML with a document type of its own", "export it again as NSRR or Profusion XML")
    try:
        root = ElementTree.fromstring(text)  # text: whatever encoding its declaration names
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise BadInput(path, f"is no well-formed XML ({error})", "copy or export it again") from None
    # Alice: a person's stages, where the file has a machine's too.
    top = next((node for node in root.iter() if _local(node) in ("UserStaging", "HumanStaging")), root)
    records: dict[str, list[Mapping[str, str]]] = {}
    nodes = [(top, "")]
    while nodes:
        node, scorer = nodes.pop()
        if SCORER.search(_local(node)):
            scorer = node.get("name") or node.get("id") or scorer
        leaves = {_local(child): (child.text or "").strip() for child in node if not len(child)}
        fields = {_local(node): (node.text or "").strip()} | node.attrib | leaves | {"scorer": scorer}
        records.setdefault(_local(node), []).append({key: value for key, value in fields.items() if value})
        nodes += [(child, scorer) for child in reversed(node)]
    tables = {name: _table_of(group) or [[]] for name, group in records.items()}
    lengths = [number(table[1][0]) for name, table in tables.items() if _EPOCH_LENGTH.fullmatch(name) and table[0]]
    best = max(tables, key=lambda name: (len(_stages(tables[name], options)), len(tables[name][0])))
    if not _stages(tables[best], options):
        hint = "give a hypnogram with at least one epoch (XML: of NSRR, Profusion, Polysmith, Alice, Embla or Wonambi)"
        raise BadInput(path, "holds no stage", hint)
    return tables[best], next((length for length in lengths if length and length > 0), None), best


def _local(node: ElementTree.Element) -> str:
    return str(node.tag).rpartition("}")[2].rpartition(":")[2]
