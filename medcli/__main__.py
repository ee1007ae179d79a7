"""`python -m medcli`."""

from medcli.cli.start import main

if __name__ == "__main__":
    main()
