"""``mllm-tvm calibrate``: a model and text to a recipe, and the trade-off of pruning shadow paths."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from mllm_tvm.cli.arguments import MODEL_HELP, add_budgets, add_no_fuse_mlp, scheme_settings

if TYPE_CHECKING:
    from mllm_tvm.calibration import Calibration, Recipe

HELP = "choose how each linear is quantized, from text; write it to a recipe file"
_SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("output", help="recipe file to write")
    parser.add_argument(
        "--calibration",
        default=None,
        metavar="FILE",
        help="text to calibrate on; <|endoftext|> separates texts (default: stories the project writes)",
    )
    parser.add_argument(
        "--text-start", default=None, metavar="WORDS", help="a text begins at each paragraph that begins so"
    )
    parser.add_argument("--scheme", default="ours", metavar="NAME", help="ours (default) or a baseline")
    parser.add_argument("--max-tokens", type=int, default=None, metavar="N", help="use so much text (25000)")
    parser.add_argument(
        "--percentile", type=float, default=None, metavar="P", help="choose scales so, instead of searching"
    )
    add_budgets(parser)
    parser.add_argument(
        "--prune", type=float, default=0.0, metavar="SHARE", help="linears without a shadow path (0)"
    )
    parser.add_argument(
        "--importance",
        default="loss",
        metavar="NAME",
        help="how linears rank: loss (default), largest-outlier",
    )
    add_no_fuse_mlp(parser)
    parser.add_argument(
        "--tune-pruning", action="store_true", help="print perplexity against share and choose the share"
    )
    parser.add_argument(
        "--max-increase",
        type=float,
        default=0.005,
        metavar="SHARE",
        help="with --tune-pruning: the perplexity that pruning may cost, as a share (0.005)",
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the command."""
    from mllm_tvm.calibration import DEFAULT_MAX_TOKENS, Calibration, read_texts
    from mllm_tvm.errors import CalibrationError
    from mllm_tvm.frontend import load_model
    from mllm_tvm.quantization.rotation import rotate
    from mllm_tvm.quantization.schemes import SCHEMES

    settings = scheme_settings(args, args.percentile)
    if args.scheme not in SCHEMES:
        raise CalibrationError(f"scheme {args.scheme!r}: expected one of {', '.join(SCHEMES)}")
    model = load_model(args.model)
    model = rotate(model) if SCHEMES[args.scheme].rotated else model
    texts = read_texts(args.calibration, args.text_start) if args.calibration else _stories()
    calibration = Calibration.collect(
        model, texts, DEFAULT_MAX_TOKENS if args.max_tokens is None else args.max_tokens
    )
    recipe = calibration.recipe(args.scheme, settings)
    recipe, points = _prune(args, calibration, recipe)
    recipe.save(args.output)
    report = {"recipe": args.output, **_summary(recipe), "pruning": points}
    print(json.dumps(report) if args.json else _text(report))
    return 0


def _stories() -> list[str]:
    from mllm_tvm.build import CompileSettings, calibration_texts

    return list(calibration_texts(CompileSettings()))


def _prune(
    args: argparse.Namespace, calibration: Calibration, recipe: Recipe
) -> tuple[Recipe, list[dict[str, object]]]:
    """The recipe with importances measured and pruned, and the points of the trade-off."""
    from mllm_tvm.quantization.pruning import LARGEST_OUTLIER, PruningMeter, pick_share, prune

    if not args.prune and not args.tune_pruning:
        return recipe, []
    if args.importance == LARGEST_OUTLIER and not args.tune_pruning:
        return prune(recipe, args.prune, args.importance), []
    meter = PruningMeter(calibration, recipe, not args.no_fuse_mlp)
    recipe = meter.importance()
    if not args.tune_pruning:
        return prune(recipe, args.prune, args.importance), []
    points = meter.tune(recipe, _SHARES, args.importance)
    chosen = pick_share(points, args.max_increase)
    rows = [{**dataclasses.asdict(point), "chosen": point is chosen} for point in points]
    return prune(recipe, chosen.share, args.importance), rows


def _summary(recipe: Recipe) -> dict[str, object]:
    shadowed = [linear for linear in recipe.linears if linear.shadow]
    total = sum(linear.outlier_share for linear in shadowed)
    return {
        "scheme": recipe.scheme,
        "tokens": recipe.tokens,
        "linears": recipe.linear_count,
        "pruned": recipe.pruned_count,
        "outlier_share": round(total / len(recipe.linears), 6),
    }


def _text(report: dict[str, object]) -> str:
    lines = [
        f"{'share':>6} {'pruned':>6} {'perplexity':>10} {'increase':>9} {'divergence':>10}",
        *(
            f"{p['share']:6.2f} {p['pruned']:6} {p['perplexity']:10.4f} {p['increase']:+9.2%} "
            f"{p['divergence']:10.5f}{' <- chosen' if p['chosen'] else ''}"
            for p in report["pruning"]  # type: ignore[attr-defined]
        ),
    ]
    summary = (
        f"{report['recipe']}: scheme {report['scheme']}, {report['linears']} linears "
        f"({report['pruned']} pruned), {float(str(report['outlier_share'])):.3%} outlier channels per token"
    )
    return "\n".join([*(lines if report["pruning"] else []), summary])
