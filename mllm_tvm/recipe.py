"""A quantization recipe: what calibration found about each linear's input, as readable JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mllm_tvm.errors import CalibrationError
from mllm_tvm.json_fields import HUGE, TINY, JsonFields
from relax_passes.quantize_w8a8 import ACTIVATIONS, STATIC, LinearScheme

if TYPE_CHECKING:
    from mllm_tvm.frontend import Model

RECIPE_SCHEMA_VERSION = 2

# A list of numbers, or of pairs of them, that json.dumps spread over many lines.
_PAIR = re.compile(r"\[\s+(\d+),\s+(\d+)\s+\]")
_NUMBERS = re.compile(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]")


@dataclass(frozen=True)
class LinearRecipe:
    """The linears that read one value ``x`` [tokens, channels], and how that value is quantized.

    ``weights`` names them. ``scale`` is the int8 step of ``x / smoothing`` and ``limit`` its largest int8
    value (``scale`` times 127); ``smoothing`` has a divisor for each channel that is folded into the weights'
    rows, or nothing. ``abs_max`` is the largest ``|x|``.

    ``outlier_share`` is the share of values that int8 clips, ``outlier_channels`` the (channel, clipped
    values) of the worst channels, most first. ``shadow``: whether clipped values are carried in float; the
    rows of ``hot_channels`` are then kept in memory and serve ``hot_share`` of the clipped values.
    ``clip_scale`` and ``clip_smoothing`` are the best without a shadow path, ``importance`` what leaving it
    out adds to the loss (nats per token; None when not measured). ``signal_to_noise`` is the expected ratio,
    in dB, of the linears' outputs to their quantization error.

    ``threshold`` and ``float_channels`` belong to ``llm-int8``: values from the threshold on, and whole
    channels, that are carried in float.
    """

    weights: tuple[str, ...]
    scale: float
    limit: float
    abs_max: float
    outlier_share: float
    outlier_channels: tuple[tuple[int, int], ...]
    shadow: bool = True
    smoothing: tuple[float, ...] = ()
    clip_scale: float = 1.0
    clip_smoothing: tuple[float, ...] = ()
    signal_to_noise: float = 0.0
    importance: float | None = None
    hot_channels: tuple[int, ...] = ()
    hot_share: float = 0.0
    threshold: float = 0.0
    float_channels: tuple[int, ...] = ()

    def without_shadow(self) -> LinearRecipe:
        """Clipped to int8, at the scale that is best then."""
        return dataclasses.replace(
            self,
            shadow=False,
            scale=self.clip_scale,
            smoothing=self.clip_smoothing,
            hot_channels=(),
            hot_share=0.0,
        )


@dataclass(frozen=True)
class Recipe:
    """Everything the compiler needs to quantize one model.

    ``model_hash`` is the model's ``content_hash``, ``scheme`` the name of how the linears were chosen,
    ``activation`` how inputs are scaled (see ``relax_passes.quantize_w8a8``), ``percentile`` the one that
    scales were chosen by (None: they were searched), ``tokens`` the number of calibration tokens, and
    ``rotated`` whether the residual stream is rotated before.
    """

    model_hash: str
    percentile: float | None
    tokens: int
    linears: tuple[LinearRecipe, ...]
    scheme: str = "ours"
    activation: str = STATIC
    rotated: bool = False
    schema_version: int = RECIPE_SCHEMA_VERSION

    def prune(self, weights: Collection[str]) -> Recipe:
        """This recipe without a shadow path for the linears that ``weights`` names, at their best scales."""
        linears = (
            linear.without_shadow() if linear.weights[0] in weights else linear for linear in self.linears
        )
        return dataclasses.replace(self, linears=tuple(linears))

    @property
    def linear_count(self) -> int:
        """Number of linears (weight matrices); an entry of ``linears`` has all that read one value."""
        return sum(len(linear.weights) for linear in self.linears)

    @property
    def pruned_count(self) -> int:
        """Number of linears without a shadow path."""
        return sum(len(linear.weights) for linear in self.linears if not linear.shadow)

    def schemes(self) -> dict[str, LinearScheme]:
        """Weight name -> what ``quantize_w8a8`` needs to know."""
        return {
            weight: LinearScheme(
                self.activation,
                linear.shadow,
                bool(linear.smoothing),
                max(1, len(linear.hot_channels)),
            )
            for linear in self.linears
            for weight in linear.weights
        }

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
            self._check_channels(linear, model.parameter_shapes[linear.weights[0]][0])

    def _check_channels(self, linear: LinearRecipe, channels: int) -> None:
        listed = (*linear.hot_channels, *linear.float_channels)
        divisors = {len(linear.smoothing), len(linear.clip_smoothing)}
        if not divisors <= {0, channels} or any(channel >= channels for channel in listed):
            raise CalibrationError(
                f"the recipe's channels of {linear.weights[0]} do not fit its {channels}: calibrate again"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as JSON, in one step; raises CalibrationError when that is impossible."""
        entries = {"schema_version": 0, "scheme": "", "activation": "", **dataclasses.asdict(self)}
        text = json.dumps(entries, indent=2)
        text = _PAIR.sub(r"[\1, \2]", text)
        _write(Path(path), _NUMBERS.sub(lambda m: f"[{' '.join(m[1].split())}]", text) + "\n")

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


class _RecipeReader(JsonFields):
    def __init__(self, path: Path):
        super().__init__(path, CalibrationError)

    def recipe(self, content: object) -> Recipe:
        entry = self.entries("the file", content)
        version = entry.get("schema_version")
        if version != RECIPE_SCHEMA_VERSION:
            expected = f"schema_version {RECIPE_SCHEMA_VERSION}"
            raise CalibrationError(f"{self.path}: expected {expected}, found {version!r}: calibrate again")
        self.keys("the file", entry, Recipe)
        if entry["activation"] not in ACTIVATIONS:
            raise self.error("activation", f"one of {ACTIVATIONS}", entry["activation"])
        linears = self.items("linears", entry["linears"])
        percentile = entry["percentile"]
        recipe = Recipe(
            model_hash=self.string("model_hash", entry["model_hash"]),
            percentile=None if percentile is None else self.number("percentile", percentile, TINY, 100),
            tokens=self.integer("tokens", entry["tokens"]),
            linears=tuple(self._linear(f"linears[{i}]", linear) for i, linear in enumerate(linears)),
            scheme=self.string("scheme", entry["scheme"]),
            activation=entry["activation"],
            rotated=self.boolean("rotated", entry["rotated"]),
        )
        names = [weight for linear in recipe.linears for weight in linear.weights]
        if len(set(names)) != len(names) or not names:
            raise self.error("linears", "each weight once, at least one", names)
        return recipe

    def _linear(self, where: str, content: object) -> LinearRecipe:
        entry = self.entries(where, content)
        self.keys(where, entry, LinearRecipe)
        weights = self.items(f"{where}.weights", entry["weights"])
        channels = self.items(f"{where}.outlier_channels", entry["outlier_channels"])
        importance = entry["importance"]
        return LinearRecipe(
            weights=tuple(self.string(f"{where}.weights", weight) for weight in weights),
            scale=self.number(f"{where}.scale", entry["scale"], TINY),
            limit=self.number(f"{where}.limit", entry["limit"]),
            abs_max=self.number(f"{where}.abs_max", entry["abs_max"]),
            outlier_share=self.number(f"{where}.outlier_share", entry["outlier_share"], most=1),
            outlier_channels=tuple(self._channel(f"{where}.outlier_channels", pair) for pair in channels),
            shadow=self.boolean(f"{where}.shadow", entry["shadow"]),
            smoothing=self._divisors(f"{where}.smoothing", entry["smoothing"]),
            clip_scale=self.number(f"{where}.clip_scale", entry["clip_scale"], TINY),
            clip_smoothing=self._divisors(f"{where}.clip_smoothing", entry["clip_smoothing"]),
            signal_to_noise=self.number(f"{where}.signal_to_noise", entry["signal_to_noise"], -HUGE),
            importance=None if importance is None else self.number(f"{where}.importance", importance, -HUGE),
            hot_channels=self._channels(f"{where}.hot_channels", entry["hot_channels"]),
            hot_share=self.number(f"{where}.hot_share", entry["hot_share"], most=1),
            threshold=self.number(f"{where}.threshold", entry["threshold"]),
            float_channels=self._channels(f"{where}.float_channels", entry["float_channels"]),
        )

    def _divisors(self, where: str, value: object) -> tuple[float, ...]:
        return tuple(self.number(where, divisor, TINY) for divisor in self.items(where, value))

    def _channels(self, where: str, value: object) -> tuple[int, ...]:
        return tuple(self.integer(where, channel) for channel in self.items(where, value))

    def _channel(self, where: str, pair: object) -> tuple[int, int]:
        values = self.items(where, pair)
        if len(values) != 2:
            raise self.error(where, "pairs [channel, count]", pair)
        return self.integer(where, values[0]), self.integer(where, values[1])
