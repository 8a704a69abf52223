"""What happens while a person rates, without a window: screens, clocks, keys, storing."""
