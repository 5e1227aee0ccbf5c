"""``python -m trendcast`` is the same as ``trendcast``."""

from trendcast.cli import main

if __name__ == "__main__":
    main()
