"""`python -m holdfast` is the command line too."""

from holdfast.cli import main

if __name__ == "__main__":
    main()
