"""`python -m omniloom`: the command line."""

from omniloom.cli.main import main

if __name__ == "__main__":
    main()
