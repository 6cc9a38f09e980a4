"""A quantization recipe: what calibration found about each linear's input, as readable JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_tvm.errors import CalibrationError

if TYPE_CHECKING:
    from mllm_tvm.frontend import Model

RECIPE_SCHEMA_VERSION = 1
SCHEME = "w8a8-shadow"

# Numbers that are above 0 and exact as float32.
_TINY, _HUGE = 2.0**-126, 2.0**127

# A pair of integers that json.dumps spread over four lines.
_PAIR = re.compile(r"\[\s+(\d+),\s+(\d+)\s+\]")


@dataclass(frozen=True)
class LinearRecipe:
    """The linears that read one value, and how that value is quantized.

    ``weights`` names them. ``scale`` is the int8 step of the input, per tensor; ``percentile`` the value it
    was chosen from and ``abs_max`` the largest, of ``|x|``. ``outlier_share`` is the share of values that
    int8 clips, ``outlier_channels`` the (channel, clipped values) of the worst channels, most first.
    ``shadow``: whether clipped values are carried in float.
    """

    weights: tuple[str, ...]
    scale: float
    abs_max: float
    percentile: float
    outlier_share: float
    outlier_channels: tuple[tuple[int, int], ...]
    shadow: bool = True


@dataclass(frozen=True)
class Recipe:
    """Everything the compiler needs to quantize one model.

    ``model_hash`` is the model's ``content_hash``, ``percentile`` the one scales were chosen by (0 to 100),
    and ``tokens`` the number of calibration tokens.
    """

    model_hash: str
    percentile: float
    tokens: int
    linears: tuple[LinearRecipe, ...]
    scheme: str = SCHEME
    schema_version: int = RECIPE_SCHEMA_VERSION

    def linear(self, weight: str) -> LinearRecipe:
        """The entry of the linear whose weight is ``weight``; raises CalibrationError when there is none."""
        for linear in self.linears:
            if weight in linear.weights:
                return linear
        raise CalibrationError(f"the recipe has no linear with weight {weight}: calibrate this model again")

    def scale(self, weight: str) -> float:
        """The input scale of a linear, a float32 value; raises CalibrationError when there is none."""
        return self.linear(weight).scale

    def check(self, model: Model) -> None:
        """Raises CalibrationError unless the recipe was made for ``model``."""
        if self.model_hash != model.config.content_hash:
            raise CalibrationError(
                f"the recipe is for a model with hash {self.model_hash[:12]}, {model.path} has "
                f"{model.config.content_hash[:12]}: calibrate this model"
            )
        for linear in self.linears:
            for weight in linear.weights:
                if weight not in model.parameters:
                    raise CalibrationError(f"the recipe names {weight}, which {model.path} does not have")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as JSON, in one step; raises CalibrationError when that is impossible."""
        entries = {"schema_version": 0, "scheme": "", **dataclasses.asdict(self)}
        text = json.dumps(entries, indent=2)
        _write(Path(path), _PAIR.sub(r"[\1, \2]", text) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Reads what :meth:`save` wrote; raises CalibrationError naming what is wrong with the file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CalibrationError(f"{path} is missing: make a recipe by calibrating the model") from None
        except (OSError, ValueError) as error:
            raise CalibrationError(f"{path} is not a readable JSON file ({error})") from None
        return _RecipeReader(Path(path)).recipe(content)


def _write(path: Path, text: str) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as stream:
            stream.write(text)
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, path)
    except OSError as error:
        raise CalibrationError(f"cannot write {path}: {error.strerror}") from None


class _RecipeReader:
    def __init__(self, path: Path):
        self.path = path

    def recipe(self, content: object) -> Recipe:
        entry = self._object("the file", content)
        version = entry.get("schema_version")
        if version != RECIPE_SCHEMA_VERSION:
            expected = f"schema_version {RECIPE_SCHEMA_VERSION}"
            raise CalibrationError(f"{self.path}: expected {expected}, found {version!r}: calibrate again")
        self._keys("the file", entry, Recipe)
        if entry["scheme"] != SCHEME:
            raise self._error("scheme", repr(SCHEME), entry["scheme"])
        linears = self._list("linears", entry["linears"])
        recipe = Recipe(
            model_hash=self._string("model_hash", entry["model_hash"]),
            percentile=self._number("percentile", entry["percentile"], _TINY, 100),
            tokens=self._integer("tokens", entry["tokens"]),
            linears=tuple(self._linear(f"linears[{i}]", linear) for i, linear in enumerate(linears)),
        )
        names = [weight for linear in recipe.linears for weight in linear.weights]
        if len(set(names)) != len(names) or not names:
            raise self._error("linears", "each weight once, at least one", names)
        return recipe

    def _linear(self, where: str, content: object) -> LinearRecipe:
        entry = self._object(where, content)
        self._keys(where, entry, LinearRecipe)
        weights = self._list(f"{where}.weights", entry["weights"])
        channels = self._list(f"{where}.outlier_channels", entry["outlier_channels"])
        if not isinstance(entry["shadow"], bool):
            raise self._error(f"{where}.shadow", "true or false", entry["shadow"])
        return LinearRecipe(
            weights=tuple(self._string(f"{where}.weights", weight) for weight in weights),
            scale=self._number(f"{where}.scale", entry["scale"], _TINY),
            abs_max=self._number(f"{where}.abs_max", entry["abs_max"]),
            percentile=self._number(f"{where}.percentile", entry["percentile"]),
            outlier_share=self._number(f"{where}.outlier_share", entry["outlier_share"], most=1),
            outlier_channels=tuple(self._channel(f"{where}.outlier_channels", pair) for pair in channels),
            shadow=entry["shadow"],
        )

    def _channel(self, where: str, pair: object) -> tuple[int, int]:
        values = self._list(where, pair)
        if len(values) != 2:
            raise self._error(where, "pairs [channel, count]", pair)
        return self._integer(where, values[0]), self._integer(where, values[1])

    def _error(self, where: str, expected: str, found: object) -> CalibrationError:
        return CalibrationError(f"{self.path}: {where}: expected {expected}, found {found!r}")

    def _object(self, where: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(where, "a JSON object", value)
        return value

    def _keys(self, where: str, entry: dict[str, Any], kind: type) -> None:
        names = [field.name for field in dataclasses.fields(kind)]
        if sorted(entry) != sorted(names):
            raise self._error(where, f"the keys {sorted(names)}", sorted(entry))

    def _list(self, where: str, value: object) -> list[Any]:
        if not isinstance(value, list):
            raise self._error(where, "a list", value)
        return value

    def _string(self, where: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._error(where, "a string", value)
        return value

    def _integer(self, where: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._error(where, "an integer from 0 up", value)
        return value

    def _number(self, where: str, value: Any, least: float = 0.0, most: float = _HUGE) -> float:
        # type(), as isinstance would let a boolean through.
        if type(value) not in (int, float) or not least <= value <= most:
            raise self._error(where, f"a number from {least:g} to {most:g}", value)
        return float(value)
