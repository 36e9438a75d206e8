"""`cnnjax models`: the networks by name."""

from cnnjax.cli import shared
from cnnjax.errors import unknown


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.add_argument("pattern", nargs="?", default="", help="only names that contain this, or match it: 'vgg*_bn'")
    args = parser.parse_args(argv)
    console = shared.console()
    from rich.table import Table

    from cnnjax.models import MODELS, list_models

    chosen = {name: MODELS[name] for name in list_models(args.pattern)}
    if not chosen:
        raise unknown("model", args.pattern, MODELS)
    table = Table(title=f"Networks: {len(chosen)}", title_justify="left")
    table.add_column("name", no_wrap=True)
    for name in ("parameters", "MACs", "input"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    table.add_column("published result")
    for name, variant in chosen.items():
        size = "x".join(map(str, variant.input_shape))
        paper = f"{variant.paper.partition(',')[0]} {variant.year}"
        table.add_row(name, f"{variant.params:,}", _short(variant.macs), size, paper, variant.published)
    console.print(table)
    return 0


def _short(number: float) -> str:
    """1,582,671,872 as '1.58 G'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G" if number < 1000 else f"{number:,.0f} G"
