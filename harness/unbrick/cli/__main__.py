"""``python -m unbrick.cli``."""

from unbrick.cli.main import main

main()
