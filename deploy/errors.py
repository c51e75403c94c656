"""Errors that end a command: their text is for the person at the terminal, without a traceback.

UserError            what was asked cannot be done as asked; exit status 2
├── SettingsError    the configuration is wrong; carries every problem found
└── StartError       a part of the stack did not start; exit status 1
"""


class UserError(Exception):
    """The text says what is wrong and what to do about it."""

    exit_code = 2


class SettingsError(UserError):
    """The configuration cannot be used. `problems` has one sentence for each thing wrong."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(UserError):
    """A part of the stack cannot run on this machine, or did not become ready."""

    exit_code = 1
