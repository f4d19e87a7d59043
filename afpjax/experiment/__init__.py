"""What every job starts from: network, data, platform, faults, each made when asked for."""
