"""The leaderboard: runs, what they differ by, and the page. For docs/make_leaderboard.py."""
