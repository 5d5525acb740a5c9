"""GSM modems: brought up, watched and mended, and what comes and goes through them."""
