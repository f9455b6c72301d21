"""`python -m stepconf`: how torchrun starts a command in several processes."""

from stepconf.cli import main

main()
