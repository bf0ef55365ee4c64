"""The command line: train, evaluate, simulate, report, list. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="concert",
    help="Simulate agent populations, train cooperative policies, analyse coordination.",
    epilog="Start with:  concert train env=spread algorithm=mappo policy=graph total_steps=200000",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Pairs = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, nested with dots; values are YAML.")]
Video = Annotated[Path | None, typer.Option(help="Write one episode as a .gif or .mp4, the graph drawn over it.")]
INTERRUPTED = 130  # exit code of a program ended by Ctrl-C


@app.command(
    epilog="""[bold]Examples[/bold]

concert train env=spread algorithm=mappo policy=graph

concert train examples/demo.yaml total_steps=1e6 algorithm.learning_rate=5e-4

concert train env=./my_env.py:make num_envs=8 seed=0..4 jobs=2

concert train --resume runs/2026-11-20_12-00-00_spread_mappo_0"""
)
def train(
    config: Annotated[list[str] | None, typer.Argument(help="A YAML file, then settings as key=value.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train a policy, evaluate it, and leave a run folder with report.html."""
    from marl.runs.folders import run_folders
    from marl.runs.seeds import plan

    with errors():
        if resume is not None:
            if config:
                raise ValueError(f"--resume takes no settings, got {' '.join(config)}; the run folder has them all")
            run_folders(resume)
            from marl.runs.api import resume_runs

            runs = resume_runs(resume)
        else:
            experiments = plan(_keys(config or []))  # mistakes are answered before torch is loaded
            from marl.runs.api import train_all

            runs = train_all(*experiments)
        results = [run.summary() for run in runs] if as_json else []
        for run in runs:
            _say(f"run folder {run.folder}")
            if run.finished:
                _say(f"report     {run.folder / 'report.html'}")
            else:
                _say(f"interrupted; go on with: concert train --resume {run.folder}")
        if as_json:
            print(json.dumps(results[0] if len(results) == 1 else {"runs": results}))
    if not all(run.finished for run in runs):
        raise typer.Exit(INTERRUPTED)


@app.command(epilog="[bold]Example[/bold]\n\nconcert evaluate runs/my_run --episodes 1000 env=mpe2.simple_spread_v3")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    pairs: Pairs = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes for each policy.")] = 100,
    checkpoint: Annotated[str, typer.Option(help="latest, best, or a number.")] = "latest",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 0,
    video: Video = None,
    as_json: Json = False,
) -> None:
    """Play the policy of a run, greedy and stochastic, beside random and scripted ones.

    Settings of the environment (env, env_args, graph, wrappers) may be changed: the same weights are then tested there.
    """
    from marl.config import parse_overrides

    with errors():
        changes = parse_overrides(pairs or [])
        if video is not None:
            from marl.report.video import check_video

            check_video(video)
        from marl.runs.run import Run

        given = {"env": changes["env"]} if "env" in changes else {}
        try:
            source = Run(run)
        except ValueError:
            source = Run(run, given)  # a run of a factory, which has no name of its own
        found = source.evaluate(episodes, which=checkpoint, seed=seed, changes=changes)
        if video is not None:
            source.film(video, which=checkpoint, seed=seed, changes=changes)
            _say(f"film {video}")
        rows = {name: {"mean": e.mean, "standard_error": e.standard_error, "info": e.info} for name, e in found.items()}
        if as_json:
            print(json.dumps({"run": str(run), "episodes": episodes, "policies": rows}))
        else:
            _table(
                ["policy", "mean return", "standard error"],
                [[n, r["mean"], r["standard_error"]] for n, r in rows.items()],
            )


@app.command(
    epilog="[bold]Example[/bold]\n\nconcert simulate lq_consensus num_agents=692 --policy scripted --video film.gif"
)
def simulate(
    env: Annotated[str, typer.Argument(help="An environment: a name from `concert list`, or an import path.")],
    pairs: Pairs = None,
    policy: Annotated[str, typer.Option(help="random, scripted, or a run folder.")] = "random",
    copies: Annotated[int, typer.Option(min=1, help="Copies stepped together.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every copy.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
    video: Video = None,
    as_json: Json = False,
) -> None:
    """Run a population without learning: rate, returns and coordination metrics.

    Beside arguments of the environment, graph, wrappers, workers, policies and threads (1 if not said) are settings.
    """
    from marl.config import parse_overrides

    with errors():
        keys = parse_overrides(pairs or [])
        from marl.report.progress import Progress
        from marl.report.video import check_video
        from marl.runs.simulate import simulate as run_simulation

        path = None if video is None else check_video(video)
        with Progress(env) as display:
            result = run_simulation(env, policy, copies, steps, seed, keys, display, path)
        if path is not None:
            _say(f"film {path}")
        if as_json:
            print(json.dumps(result))
        else:
            _table(
                ["quantity", "value"], [[name, value] for name, value in result.items() if not isinstance(value, dict)]
            )
            _table(["coordination", "value"], list(map(list, result["coordination"].items())))


@app.command(epilog="[bold]Example[/bold]\n\nconcert report runs/a runs/b --out comparison.html")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of seeds.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: report.html in the first folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML report over one or many runs."""
    from marl.report.html import write_report
    from marl.runs.folders import run_folders

    with errors():
        path = write_report([folder for run in runs for folder in run_folders(run)], out)
        print(json.dumps({"report": str(path)}) if as_json else path)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="envs, algorithms, graphs, signals, or all.")] = "all",
    as_json: Json = False,
) -> None:
    """Show what there is: environments, algorithms, graphs, signals."""
    from marl.runs.catalogue import catalogue

    with errors():
        tables = catalogue(what)
        if as_json:
            print(json.dumps(tables))
            return
        for title, rows in tables.items():
            print(f"\n{title}")
            for name, text in rows.items():
                print(f"  {name:<16}{text}")


def main() -> None:
    """Entry point of the ``concert`` command."""
    app()


@contextmanager
def errors() -> Iterator[None]:
    """A user's mistake, or a world's, becomes one line on stderr and exit code 1; our own bugs keep their traceback.

    With CONCERT_TRACEBACK=1 in the environment, everything keeps it.
    """
    try:
        yield
    except KeyboardInterrupt:
        _say("interrupted; the last checkpoint stands")
        raise typer.Exit(INTERRUPTED) from None
    except SystemExit as error:  # ours are typer.Exit
        _say(f"error: the environment ended the program by sys.exit({error.code!r})")
        raise typer.Exit(1) from None
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError, MemoryError) as error:
        full = isinstance(error, MemoryError) or re.search(r"can't allocate memory|out of memory", str(error))
        if not (full or _foreseen(error)) or os.environ.get("CONCERT_TRACEBACK"):
            raise
        _say("error: not enough memory; use fewer copies, agents or steps" if full else f"error: {error}")
        raise typer.Exit(1) from None


def _foreseen(error: Exception) -> bool:
    """Whether an error is one that the code raises on purpose about input, and no bug of ours."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    name = at.tb_frame.f_globals.get("__name__", "") if at is not None else ""
    return isinstance(error, OSError | ImportError) or name.split(".")[0] in ("marl", "envs", "coordination", "yaml")


def _keys(words: list[str]) -> dict[str, Any]:
    """Settings from a YAML file and ``key=value`` pairs, in that order."""
    from marl.config import ConfigError, merge, parse_overrides, read_yaml

    files = [w for w in words if "=" not in w or os.path.isfile(w)]  # a folder may have such a name
    if len(files) > 1:
        raise ConfigError(f"expected at most one YAML file and key=value settings, got {' '.join(files)}")
    base = read_yaml(Path(files[0])) if files else {}
    return merge(base, parse_overrides([w for w in words if w not in files]))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _table(head: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head)
    for row in rows:
        table.add_row(*(f"{x:,.4g}" if isinstance(x, float) else str(x) for x in row))
    Console().print(table)


if __name__ == "__main__":
    main()
