"""The command line. Each command imports what it needs when it runs, so that ``--help`` is instant.

Exit codes: 0 done, 1 failure, 2 usage or config, 3 plugin, 4 environment not ready, 130 stopped by the user.
"""

from __future__ import annotations

import os
import sys

import typer

from agentctl.core.commands import bench, compare, config, doctor, dream, export, games, plugins, record, run
from agentctl.core.errors import AgentctlError

app = typer.Typer(
    name="agentctl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Agents that play games: perception, world model, memory, reward and policy from one YAML.",
)
app.command("run")(run.run)
app.command("eval")(run.evaluate)
app.command("compare")(compare.compare)
app.command("bench", context_settings=bench.SETTINGS)(bench.bench)
app.command("record")(record.record)
app.command("replay")(record.replay)
app.command("dream")(dream.dream)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(plugins.app, name="plugins")
app.add_typer(games.app, name="games")


def main() -> None:
    """Run the command line; a user's error is a message and an exit code, never a traceback."""
    # Passive waiting must be set before torch loads OpenMP: spinning threads steal the cores from emulation.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # standard output is for what `--json` promises
    try:
        app()
    except AgentctlError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
