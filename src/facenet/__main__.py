"""`python -m facenet` is the command line."""

from facenet.apps.cli import main

if __name__ == "__main__":
    main()
