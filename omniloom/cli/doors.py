"""How a command ends: errors as one clear line, and which number the shell gets.

0 done, 1 done but something is wrong with what was looked at, 2 the user's file or argument is wrong, 70 a defect,
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from omniloom.cli.terminal import warn
from omniloom.errors import OmniloomError

__all__ = ["DEFECT", "INTERRUPTED", "PROBLEMS", "WRONG", "Doors", "Group"]

PROBLEMS = 1
WRONG = 2
DEFECT = 70
INTERRUPTED = 130

_DEBUG = "--debug"


class Group(TyperGroup):
    """A group whose commands show their help without loading pydantic, which typer takes to read a missing value."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`; not given means False."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class Doors(Group):
    """The group of all commands. `--debug` may stand anywhere; so may OMNILOOM_DEBUG=1 in the environment."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` out of the arguments before the commands see them."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["omniloom.debug"] = _DEBUG in args[:end] or os.environ.get("OMNILOOM_DEBUG", "") not in ("", "0")
        rest: list[str] = super().parse_args(ctx, [arg for arg in args[:end] if arg != _DEBUG] + args[end:])
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it raises becomes a line on standard error and an exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except typer.TyperException as error:
            warn(f"error: {_one_line(error.format_message())} (omniloom COMMAND --help shows how it is called)")
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            warn(f"\ninterrupted. {ctx.meta.get('omniloom.resume', 'Nothing was lost but this call.')}")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            if ctx.meta["omniloom.debug"]:
                warn("".join(traceback.format_exception(error)).rstrip())
                raise typer.Exit(WRONG if _is_users(error) else DEFECT) from None
            if _is_users(error):
                warn(f"error: {_one_line(error)}")
                raise typer.Exit(WRONG) from None
            warn(f"failed: {type(error).__name__}: {_one_line(error)}")
            warn("This is a defect of Omniloom or of a part file. The same call with --debug shows the traceback.")
            raise typer.Exit(DEFECT) from None


def _is_users(error: Exception) -> bool:
    return isinstance(error, OmniloomError | OSError)


def _one_line(error: Exception | str) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return " ".join(str(error).split()) or "no message"
