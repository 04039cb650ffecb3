"""`python -m sshr_deploy`."""

from sshr_deploy.cli import main

main()
