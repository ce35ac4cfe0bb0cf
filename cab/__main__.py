"""``python -m cab``: the command line."""

from cab.cli.app import main

if __name__ == "__main__":
    main()
