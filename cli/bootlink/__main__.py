"""`bootlink`, and `python -m bootlink`."""

from bootlink.app import main

if __name__ == "__main__":
    main()
