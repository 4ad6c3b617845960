"""`python -m facenet` is the command line."""

from facenet.apps.cli import main

main()
