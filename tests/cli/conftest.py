import pytest

from tapwise import cli


@pytest.fixture
def here(capsys):
    """Run the command in this process: what it prints; for mistakes, what it says of them."""

    def run(*arguments):
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return run
