"""From bytes to use cases, one module per source. Alarms and telemetry are lanes of their own (D3)."""
