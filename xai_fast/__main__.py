"""`python -m xai_fast`: the command line without its script."""

from xai_fast.cli import main

main()
