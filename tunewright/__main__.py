"""`python -m tunewright`."""

from tunewright.cli.app import main

main()
