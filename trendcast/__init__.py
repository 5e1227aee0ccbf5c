"""trendcast: SQL-native forecasting inside the warehouse."""

__version__ = "0.1.0"
